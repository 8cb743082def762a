package awssecretsmanager

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/nexus-broker/nexus-broker/secret"
)

const (
	// maxBatch is how many secrets AWS reads in one request.
	maxBatch = 20
	// batchPause is how long a denied BatchGetSecretValue is not tried again.
	batchPause = 5 * time.Minute
)

// ReadBatch implements [secret.BatchReader]: one BatchGetSecretValue for each 20 keys.
// Where no policy allows that, it reads them one by one, and does not ask again for a few
// minutes.
func (b *AWSBackend) ReadBatch(ctx context.Context, keys []string) []secret.Outcome {
	const op = "read"
	outcomes := make([]secret.Outcome, len(keys))
	byName := map[string][]int{} // what AWS is asked for, and where the answers go
	var names []string
	for i, key := range keys {
		if err := secret.CheckKey(key); err != nil {
			outcomes[i].Err = b.invalid(op, key, err)
			continue
		}
		name := b.name(key)
		if byName[name] == nil {
			names = append(names, name)
		}
		byName[name] = append(byName[name], i)
	}
	for chunk := range slices.Chunk(names, maxBatch) {
		for name, o := range b.readNames(ctx, op, chunk) {
			for _, i := range byName[name] {
				outcomes[i] = o
			}
		}
	}
	return outcomes
}

// readNames reads secrets by their names, which are keys'.
func (b *AWSBackend) readNames(ctx context.Context, op string, names []string) map[string]secret.Outcome {
	if len(names) == 1 || b.singly() {
		return b.readSingly(ctx, op, names)
	}
	var out *secretsmanager.BatchGetSecretValueOutput
	denied := false
	err := b.run(ctx, action{op, names[0]}, func(ctx context.Context) (err error) {
		out, err = call(ctx, b, b.sdk.BatchGetSecretValue, &secretsmanager.BatchGetSecretValueInput{SecretIdList: names})
		denied = errors.Is(err, secret.ErrDenied) && !errors.Is(err, secret.ErrLogin) || is(err, "UnknownOperationException")
		return err
	})
	switch {
	case denied:
		b.readOneByOne()
		return b.readSingly(ctx, op, names)
	case err != nil:
		found := map[string]secret.Outcome{}
		inner := errors.Unwrap(err) // without the name of the first
		for _, name := range names {
			found[name] = secret.Outcome{Err: action{op, name}.wrap(inner)}
		}
		return found
	}
	return b.sort(ctx, op, names, out)
}

// sort finds the outcome of each name in the answer to a batch. A name that is neither
// among the values nor among the errors is asked for by itself.
func (b *AWSBackend) sort(ctx context.Context, op string, names []string, out *secretsmanager.BatchGetSecretValueOutput) map[string]secret.Outcome {
	found := map[string]secret.Outcome{}
	for _, v := range out.SecretValues {
		name := aws.ToString(v.Name)
		item, err := itemOf(v.SecretString, v.SecretBinary, v.VersionId, v.VersionStages)
		if err != nil {
			err = action{op, name}.wrap(err)
		}
		found[name] = secret.Outcome{Item: item, Err: err}
	}
	for _, e := range out.Errors {
		name := aws.ToString(e.SecretId)
		found[name] = secret.Outcome{Err: action{op, name}.wrap(classify(aws.ToString(e.ErrorCode), aws.ToString(e.Message), 0, 0))}
	}
	var left []string
	for _, name := range names {
		if _, there := found[name]; !there {
			left = append(left, name)
		}
	}
	for name, o := range b.readSingly(ctx, op, left) {
		found[name] = o
	}
	return found
}

// readSingly reads secrets at the same time, a request for each.
func (b *AWSBackend) readSingly(ctx context.Context, op string, names []string) map[string]secret.Outcome {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		found = map[string]secret.Outcome{}
	)
	for _, name := range names {
		wg.Go(func() {
			var o secret.Outcome
			o.Err = b.run(ctx, action{op, name}, func(ctx context.Context) (err error) {
				o.Item, err = b.currentOf(ctx, name)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			found[name] = o
		})
	}
	wg.Wait()
	return found
}

func (b *AWSBackend) singly() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.batchDenied)
}

func (b *AWSBackend) readOneByOne() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batchDenied = time.Now().Add(batchPause)
	b.log.Info("no policy allows secretsmanager:BatchGetSecretValue: secrets are read one by one", "for", batchPause.String())
}
