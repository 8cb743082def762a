package awsserver_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

// recordings returns the folder with the traffic that gocloud.dev has recorded between
// its tests and AWS. The module is that of test/recordings, so that ours does not need it.
// Where it cannot be had the test is skipped; in CI it fails.
func recordings(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", "gocloud.dev")
	cmd.Dir = "../recordings"
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.Output()
	var module struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	if err == nil && module.Dir == "" {
		err = fmt.Errorf("go mod download names no folder")
	}
	if err != nil {
		if os.Getenv("CI") == "true" || os.Getenv("NEXUS_TEST_SERVERS") == "1" {
			t.Fatalf("the recordings: %v", err)
		}
		t.Skipf("needs the module gocloud.dev: %v", err)
	}
	return filepath.Join(module.Dir, "runtimevar", "awssecretsmanager", "testdata")
}

// recording is a file of theirs.
type recording struct {
	Entries []struct {
		Request struct {
			Header    http.Header
			BodyParts [][]byte
		}
		Response struct {
			StatusCode int
			Header     http.Header
			Body       []byte
		}
	}
}

// The server answers what AWS has answered: status, members and their types, names of
// errors and their texts, versions and their stages.
func TestTheServerAnswersLikeAWS(t *testing.T) {
	exchanges := 0
	err := filepath.WalkDir(recordings(t), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".replay") {
			t.Run(filepath.Base(filepath.Dir(path))+"/"+d.Name(), func(t *testing.T) { exchanges += replay(t, path) })
		}
		return err
	})
	require.NoError(t, err)
	require.Greater(t, exchanges, 100, "the recordings are not where they were")
}

func replay(t *testing.T, path string) int {
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var r recording
	require.NoError(t, json.Unmarshal(raw, &r))
	require.NotEmpty(t, r.Entries)
	var clock atomic.Int64
	s := awsserver.Start(t, awsserver.WithClock(func() time.Time { return time.Unix(clock.Load(), 0) }))
	for i, e := range r.Entries {
		at, err := http.ParseTime(e.Response.Header.Get("Date"))
		require.NoError(t, err)
		clock.Store(at.Unix())
		target := e.Request.Header.Get("X-Amz-Target")
		if target == "secretsmanager.DeleteSecret" {
			s.ForceDelay(goneAfter(r, i, at))
		}
		status, header, body := send(t, s.URL, target, bytes.Join(e.Request.BodyParts, nil), at)
		what := fmt.Sprintf("exchange %d, %s", i, target)
		require.Equal(t, e.Response.StatusCode, status, "%s: %s", what, body)
		require.Equal(t, e.Response.Header.Get("Content-Type"), header.Get("Content-Type"), what)
		require.Regexp(t, `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, header.Get("X-Amzn-Requestid"), what)
		require.Equal(t, shape(t, e.Response.Body), shape(t, body), what)
	}
	return len(r.Entries)
}

// goneAfter returns how long after a deletion without recovery AWS has no longer known
// the secret.
func goneAfter(r recording, deletion int, at time.Time) time.Duration {
	for _, e := range r.Entries[deletion+1:] {
		if e.Response.StatusCode == http.StatusBadRequest {
			gone, _ := http.ParseTime(e.Response.Header.Get("Date"))
			return gone.Sub(at)
		}
	}
	return time.Hour
}

var arn = regexp.MustCompile(`^arn:aws:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:(.+)-[A-Za-z0-9]{6}$`)

// shape is an answer without what differs from account to account and day to day: a date
// is its type and whether it is a whole day, an ARN the name in it.
func shape(t *testing.T, body []byte) map[string]any {
	t.Helper()
	var answer map[string]any
	require.NoError(t, json.Unmarshal(body, &answer), "%s", body)
	for k, v := range answer {
		switch x := v.(type) {
		case float64:
			answer[k] = fmt.Sprintf("a date, a whole day: %t", int64(x)%86400 == 0)
		case string:
			if m := arn.FindStringSubmatch(x); k == "ARN" && m != nil {
				answer[k] = "an ARN of " + m[1]
			}
		}
	}
	return answer
}

// send makes a signed request with the vendor's signer.
func send(t *testing.T, url, target string, body []byte, at time.Time) (int, http.Header, []byte) {
	t.Helper()
	req := signed(t, url, target, body, at, aws.Credentials{AccessKeyID: awsserver.AccessKeyID, SecretAccessKey: awsserver.SecretAccessKey}, "secretsmanager", awsserver.Region)
	return do(t, req)
}

func signed(t *testing.T, url, target string, body []byte, at time.Time, c aws.Credentials, service, region string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", target)
	sum := sha256.Sum256(body)
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), c, req, hex.EncodeToString(sum[:]), service, region, at))
	return req
}

func do(t *testing.T, req *http.Request) (int, http.Header, []byte) {
	t.Helper()
	resp, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, answer
}
