package credentials

import (
	"context"
	"sync"
)

// fetch is a way to read several keys: it returns a result for each, in their order.
type fetch func(ctx context.Context, keys []string) []result

// items reads what the backend knows of each key, the owners included, in parallel.
func (src *source) items(ctx context.Context, keys []string) []result {
	return inParallel(keys, func(key string) result {
		item, err := src.store.Read(ctx, key)
		return result{key: key, path: src.locate(key), item: item, err: err}
	})
}

// values reads what a flow needs, which is no owners: in one request where the backend
// can do that.
func (src *source) values(ctx context.Context, keys []string) []result {
	if src.can.Batch == nil || len(keys) < 2 {
		return src.items(ctx, keys)
	}
	results := make([]result, len(keys))
	for i, o := range src.can.Batch.ReadBatch(ctx, keys) {
		results[i] = result{key: keys[i], path: src.locate(keys[i]), item: o.Item, err: o.Err}
	}
	return results
}

// inParallel reads each key at the same time as the others.
func inParallel(keys []string, read func(key string) result) []result {
	results := make([]result, len(keys))
	at := func(i int) { results[i] = read(keys[i]) }
	var others sync.WaitGroup
	for i := 1; i < len(keys); i++ {
		others.Go(func() { at(i) })
	}
	at(0)
	others.Wait()
	return results
}
