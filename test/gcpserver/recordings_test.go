package gcpserver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

// The project of the recordings.
const (
	recordedProject = "go-cloud-test-216917"
	recordedNumber  = "892942638129"
)

// TestAgainstRecordings asks the server what was asked of Google when gocloud.dev
// recorded its tests (2021), and compares the answers.
func TestAgainstRecordings(t *testing.T) {
	exchanges := 0
	for _, file := range recordings(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := gcpserver.Start(t)
			conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			for _, x := range exchangesOf(t, file) {
				exchanges++
				got := x.answer.ProtoReflect().New().Interface()
				if _, failed := x.answer.(*spb.Status); failed {
					got = &emptypb.Empty{}
				}
				err := conn.Invoke(context.Background(), x.method, translate(t, x.request), got)
				compare(t, x, got, err)
			}
		})
	}
	if exchanges < 40 {
		t.Errorf("only %d exchanges are in the recordings", exchanges)
	}
}

// recordings returns the files. They are in a module of its own, which is downloaded.
func recordings(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", "gocloud.dev")
	cmd.Dir = filepath.Join("..", "recordings")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &module); err != nil || jsonErr != nil || module.Dir == "" {
		const what = "the recorded traffic of gocloud.dev cannot be downloaded"
		if os.Getenv("CI") == "true" || os.Getenv("NEXUS_TEST_SERVERS") == "1" {
			t.Fatalf("%s: %v %s", what, err, module.Error)
		}
		t.Skip(what)
	}
	var files []string
	err = filepath.WalkDir(filepath.Join(module.Dir, "runtimevar", "gcpsecretmanager", "testdata"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".replay") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	return files
}

// exchange is a request with its answer, which is a status if it failed.
type exchange struct {
	method          string
	request, answer proto.Message
}

// exchangesOf reads a file of github.com/google/go-replayers/grpcreplay: the word
// RPCReplay, then records with their length before them (4 bytes, little-endian). The
// first is a state of the test's, the others are messages of its grpcreplay.proto: kind
// (1: request, 2: answer), method, message, and, as field 5, the number of the request.
func exchangesOf(t *testing.T, file string) []exchange {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data, ok := bytes.CutPrefix(data, []byte("RPCReplay"))
	if !ok {
		t.Fatalf("%s is no recording", file)
	}
	r := bytes.NewReader(data)
	var all []exchange
	index := map[uint64]int{} // number of the request → exchange
	for n := uint64(0); ; n++ {
		var size uint32
		if err := binary.Read(r, binary.LittleEndian, &size); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, size)
		if _, err := io.ReadFull(r, buf); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			continue
		}
		e := fields(t, buf)
		packed := &anypb.Any{}
		if err := proto.Unmarshal(e[3].bytes, packed); err != nil {
			t.Fatal(err)
		}
		message, err := packed.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		if e[1].number == 1 {
			index[n] = len(all)
			all = append(all, exchange{method: string(e[2].bytes), request: message})
		} else {
			all[index[e[5].number]].answer = message
		}
	}
}

type field struct {
	number uint64
	bytes  []byte
}

func fields(t *testing.T, b []byte) map[protowire.Number]field {
	t.Helper()
	all := map[protowire.Number]field{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		var f field
		switch typ {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		all[num], b = f, b[n:]
	}
	return all
}

func ours(s string) string {
	return strings.NewReplacer(recordedProject, gcpserver.Project, recordedNumber, gcpserver.ProjectNumber).Replace(s)
}

// translate returns the request for our project.
func translate(t *testing.T, m proto.Message) proto.Message {
	t.Helper()
	m = proto.Clone(m)
	r := m.ProtoReflect()
	r.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Kind() == protoreflect.StringKind && !f.IsList() && !f.IsMap() {
			r.Set(f, protoreflect.ValueOfString(ours(v.String())))
		}
		return true
	})
	return m
}

var etagPattern = regexp.MustCompile(`^"[0-9a-f]+"$`)

// compare checks the code and the text of a failure, and every field of an answer, but
// for times and etags, of which it compares the form.
func compare(t *testing.T, x exchange, got proto.Message, err error) {
	t.Helper()
	if want, failed := x.answer.(*spb.Status); failed {
		if s := status.Convert(err); uint32(s.Code()) != uint32(want.GetCode()) || s.Message() != ours(want.GetMessage()) {
			t.Errorf("%s: %v; Google says %v", x.method, err, want)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", x.method, err)
		return
	}
	want := translate(t, x.answer)
	for _, m := range []proto.Message{want, got} {
		switch v := m.(type) {
		case *secretmanagerpb.Secret:
			form(t, x.method, v.GetEtag(), v.GetCreateTime().IsValid())
			v.Etag, v.CreateTime = "", nil
		case *secretmanagerpb.SecretVersion:
			form(t, x.method, v.GetEtag(), v.GetCreateTime().IsValid())
			v.Etag, v.CreateTime = "", nil
		}
	}
	if !proto.Equal(got, want) {
		t.Errorf("%s: %v\nGoogle says %v", x.method, got, want)
	}
}

func form(t *testing.T, method, etag string, time bool) {
	t.Helper()
	if !etagPattern.MatchString(etag) || !time {
		t.Errorf("%s: etag %s, time: %t", method, etag, time)
	}
}
