package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres returns the URL of a fresh database, dropped when the test ends, on a
// cluster that the tests of the process share. It survives the death of any process, but
// not that of the machine: nothing is to be measured on it.
//
// The programs are taken from PG_BINDIR, else from the newest version below
// /usr/lib/postgresql, else from PATH.
func Postgres(t TB) string {
	t.Helper()
	Enabled(t, "PostgreSQL")
	cluster, err := sharedCluster()
	if err != nil {
		t.Fatalf("PostgreSQL: %v", err)
	}
	return cluster.Database(t)
}

var sharedCluster = sync.OnceValues(func() (*Cluster, error) {
	c, err := newCluster([]string{"fsync=off", "full_page_writes=off"})
	if err == nil {
		c.process.cleanup = func() { _ = os.RemoveAll(c.dir) }
	}
	return c, err
})

// PostgresCluster starts a cluster of the test's own, which it may stop and start
// again. Settings are server settings as "name=value", for example "fsync=off".
func PostgresCluster(t TB, settings ...string) *Cluster {
	t.Helper()
	Enabled(t, "PostgreSQL")
	c, err := newCluster(settings)
	if err != nil {
		t.Fatalf("PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		c.Stop()
		_ = os.RemoveAll(c.dir)
	})
	return c
}

// Cluster is a PostgreSQL server with its data.
type Cluster struct {
	bin, dir  string
	port      int
	settings  []string
	owner     *syscall.Credential // nil: the user who runs the tests
	databases atomic.Int64
	log       Log
	process   *Process
	mu        sync.Mutex
	conn      *pgx.Conn // of admin; nil: none
}

func newCluster(settings []string) (*Cluster, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, settings: settings}
	if c.owner, err = unprivileged(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "nexus-pg-"); err != nil {
		return nil, err
	}
	if c.owner != nil {
		err = os.Chown(c.dir, int(c.owner.Uid), int(c.owner.Gid))
	}
	if err == nil {
		err = c.init()
	}
	if err == nil {
		err = c.startSomewhere()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	return c, nil
}

// postgresBin returns the folder of initdb and postgres.
func postgresBin() (string, error) {
	if dir := os.Getenv("PG_BINDIR"); dir != "" {
		return dir, nil
	}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(installed) > 0 {
		return filepath.Dir(slices.MaxFunc(installed, func(a, b string) int {
			return majorVersion(a) - majorVersion(b)
		})), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", errors.New("no PostgreSQL server found: install the package postgresql or set PG_BINDIR")
	}
	return filepath.Dir(path), nil
}

func majorVersion(program string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(program))))
	return n
}

// unprivileged returns whom the server shall run as: PostgreSQL refuses to run as
// root. nil where the tests do not run as root either.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("the tests run as root and there is no user postgres or nobody to run the server as")
}

func (c *Cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir
	cmd.Stdout, cmd.Stderr = &c.log, &c.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	return cmd
}

// Data returns the folder of the cluster's files.
func (c *Cluster) Data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) init() error {
	cmd := c.command("initdb", "--pgdata", c.Data(), "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, c.log.String())
	}
	return nil
}

// startSomewhere starts the server on a free port. Somebody else may take the port
// before the server does: then it tries another.
func (c *Cluster) startSomewhere() (err error) {
	for range 3 {
		if c.port, err = freePort(); err != nil {
			return err
		}
		if err = c.start(); err == nil {
			return nil
		}
	}
	return err
}

// freePort asks the kernel for a port.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (c *Cluster) start() error {
	args := []string{"-D", c.Data(), "-p", strconv.Itoa(c.port)}
	for _, s := range append([]string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=" + c.dir, "max_connections=200",
	}, c.settings...) {
		args = append(args, "-c", s)
	}
	p, err := start(c.command("postgres", args...), nil)
	if err != nil {
		return err
	}
	p.quit = syscall.SIGINT // "fast": SIGTERM would wait for every client to leave
	err = waitFor(p, func() error { return c.admin(func(context.Context, *pgx.Conn) error { return nil }) })
	if err != nil {
		p.Stop()
		return fmt.Errorf("%w\n%s", err, c.log.String())
	}
	c.process = p
	return nil
}

// Start starts the server after Stop, on the same port.
func (c *Cluster) Start(t TB) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
}

// Stop stops the server, ending every session at once ("fast" shutdown).
func (c *Cluster) Stop() { c.process.Stop() }

// Restart is Stop and Start.
func (c *Cluster) Restart(t TB) {
	t.Helper()
	c.Stop()
	c.Start(t)
}

// Log returns what the server has printed.
func (c *Cluster) Log() string { return c.log.String() }

// Bin returns the path of one of PostgreSQL's programs.
func (c *Cluster) Bin(program string) string { return filepath.Join(c.bin, program) }

// URL returns the URL of a database of the cluster.
func (c *Cluster) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Path: "/" + database,
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)),
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Database creates an empty database, dropped when the test ends, and returns its
// URL.
func (c *Cluster) Database(t TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", c.databases.Add(1))
	if err := c.admin(create(name)); err != nil {
		t.Fatalf("creating a database: %v", err)
	}
	// Best effort: the server may be stopped by then, and goes with its files.
	t.Cleanup(func() { _ = c.admin(statement("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)")) })
	return c.URL(name)
}

// create makes a database by copying files, which takes half as long as the way that
// PostgreSQL prefers since version 15.
func create(name string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		sql := "CREATE DATABASE " + name
		version, _, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), ".")
		if major, err := strconv.Atoi(version); err == nil && major >= 15 {
			sql += " STRATEGY = FILE_COPY"
		}
		return statement(sql)(ctx, conn)
	}
}

func statement(sql string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql)
		return err
	}
}

// admin runs f on a connection to the database "postgres", which is kept for the next.
func (c *Cluster) admin(f func(context.Context, *pgx.Conn) error) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && c.conn.Ping(ctx) != nil { // the server has been restarted
		_ = c.conn.Close(ctx)
		c.conn = nil
	}
	if c.conn == nil {
		if c.conn, err = pgx.Connect(ctx, c.URL("postgres")); err != nil {
			return err
		}
	}
	return f(ctx, c.conn)
}
