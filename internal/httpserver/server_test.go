package httpserver_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/httpserver"
)

// running is a server of one test.
type running struct {
	addr string
	stop context.CancelFunc
	done chan error
	log  *logBuffer
}

// serve runs a server until the test ends.
func serve(t *testing.T, o httpserver.Options) *running {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{addr: ln.Addr().String(), stop: cancel, done: make(chan error, 1), log: &logBuffer{}}
	o.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	go func() { r.done <- httpserver.Serve(ctx, ln, o) }()
	t.Cleanup(cancel)
	return r
}

func (r *running) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not end")
		return nil
	}
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// slowHandler tells when it has begun and waits to be released.
type slowHandler struct{ begun, release chan struct{} }

func newSlowHandler() slowHandler {
	return slowHandler{begun: make(chan struct{}, 1), release: make(chan struct{})}
}

func (h slowHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.begun <- struct{}{}
	select {
	case <-h.release:
		_, _ = io.WriteString(w, "finished")
	case <-r.Context().Done():
	}
}

func TestRequestsInFlightFinish(t *testing.T) {
	h := newSlowHandler()
	r := serve(t, httpserver.Options{Handler: h})
	body := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + r.addr)
		if err != nil {
			body <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		body <- string(b)
	}()
	<-h.begun
	r.stop()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", r.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, 10*time.Second, 5*time.Millisecond, "new connections are refused at once")
	select { // for longer than the server waits for the headers of connections that were just made
	case err := <-r.done:
		t.Fatalf("the server has ended with a request in flight: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	close(h.release)
	require.NoError(t, r.ended(t))
	require.Equal(t, "finished", <-body)
}

func TestGraceEnds(t *testing.T) {
	h := newSlowHandler()
	r := serve(t, httpserver.Options{Handler: h, Grace: 50 * time.Millisecond})
	failed := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + r.addr)
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-h.begun
	r.stop()
	require.ErrorIs(t, r.ended(t), context.DeadlineExceeded)
	require.Error(t, <-failed)
}

func TestServeReturnsWhatTheListenerMeets(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	err = httpserver.Serve(context.Background(), ln, httpserver.Options{Handler: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler)})
	require.ErrorIs(t, err, net.ErrClosed)
}

// A client that never ends its header does not keep a connection for ever.
func TestSlowHeaderIsCutOff(t *testing.T) {
	r := serve(t, httpserver.Options{Handler: http.NotFoundHandler(), HeaderTimeout: 100 * time.Millisecond, ReadTimeout: time.Hour})
	conn, err := net.Dial("tcp", r.addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	_, err = io.ReadAll(conn) // until the server closes it
	require.NoError(t, err)
}

func TestSlowBodyIsCutOff(t *testing.T) {
	read := make(chan error, 1)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
	})
	r := serve(t, httpserver.Options{Handler: h, ReadTimeout: 100 * time.Millisecond})
	conn, err := net.Dial("tcp", r.addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
	require.NoError(t, err)
	select {
	case err := <-read:
		require.Error(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("the handler still reads")
	}
}

// A client that asks and never reads keeps its handler no longer than WriteTimeout.
func TestAnAnswerThatNobodyReadsIsCutOff(t *testing.T) {
	ended := make(chan error, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		part := make([]byte, 1<<20)
		for {
			if _, err := w.Write(part); err != nil {
				ended <- err
				return
			}
		}
	})
	r := serve(t, httpserver.Options{Handler: h, WriteTimeout: 100 * time.Millisecond})
	conn, err := net.Dial("tcp", r.addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	select {
	case err := <-ended:
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	case <-time.After(30 * time.Second):
		t.Fatal("the handler still writes")
	}
}

func TestHugeHeaderIsRefused(t *testing.T) {
	r := serve(t, httpserver.Options{Handler: http.NotFoundHandler()})
	conn, err := net.Dial("tcp", r.addr)
	require.NoError(t, err)
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Huge: "+strings.Repeat("a", 2*httpserver.MaxHeaderBytes)+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return // the connection was cut before the answer could be read
	}
	defer resp.Body.Close()
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
}

// openapi.yaml says which answers are not the API's.
func TestWhatNeverBecomesARequest(t *testing.T) {
	r := serve(t, httpserver.Options{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })})
	for raw, status := range map[string]int{
		"GET / HTTP/1.1\r\n\r\n":                                            400,
		"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n":                   400,
		"POST / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n":            417,
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: compress\r\n\r\n": 501,
		"GET / HTTP/3.0\r\nHost: x\r\n\r\n":                                 505,
	} {
		conn, err := net.Dial("tcp", r.addr)
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, raw)
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, raw)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, status, resp.StatusCode, raw)
		require.Empty(t, resp.Header.Get("X-Request-Id"))
		require.True(t, resp.Close, raw)
	}
}

// A connection that was made before the end may still send its request.
func TestConnectionMadeJustBeforeTheEnd(t *testing.T) {
	h := newSlowHandler()
	close(h.release)
	r := serve(t, httpserver.Options{Handler: h})
	conn, err := net.Dial("tcp", r.addr)
	require.NoError(t, err)
	defer conn.Close()
	time.Sleep(20 * time.Millisecond) // accepted
	r.stop()
	time.Sleep(20 * time.Millisecond) // the end has begun
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "200 OK")
	require.Contains(t, string(answer), "Connection: close")
	require.NoError(t, r.ended(t))
}
