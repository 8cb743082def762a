package e2e_test

import (
	"bytes"
	"database/sql"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// onTerminal runs the binary to its end, with stdout in a pipe and stderr at a terminal of
// 80 columns. It returns what came out of the one, and what was sent to the other.
func onTerminal(t *testing.T, e env, args ...string) (stdout, screen string) {
	t.Helper()
	path := plain.file(t)
	end, terminal, err := pty.Open()
	require.NoError(t, err)
	defer func() { _ = end.Close() }()
	require.NoError(t, pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: 80}))
	var out, drawn bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = e.list(), t.TempDir(), &out, terminal
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&drawn, end) // ends with an error when nobody has the terminal any more
	}()
	err = cmd.Run()
	require.NoError(t, terminal.Close())
	<-read
	require.NoError(t, err, "%v\n%s%s", args, out.String(), drawn.String())
	return out.String(), drawn.String()
}

// A bar is drawn over itself: it begins at the start of the line.
var (
	moveBar     = regexp.MustCompile(`\[#{0,20}\.{0,20}\] \d+ of 3`)
	rotationBar = regexp.MustCompile(`\r(\w+) +\[=* *\] +(\d+)% (\d+) of (\d+) `)
)

// TestProgress: a bar on a terminal, plain lines elsewhere, nothing with --json but the
// report.
func TestProgress(t *testing.T) {
	t.Parallel()
	t.Run("secrets migrate", func(t *testing.T) {
		t.Parallel()
		v := newProxiedVault(t, nil)
		inVault := v.world.env
		b := start(t, inVault.with(env{"SECRET_BACKEND": "internal"}))
		for _, name := range []string{"one", "two", "three"} {
			b.call("POST", "/providers", map[string]any{"profile": profilePair(name, "CANARY-"+name)}).want(201)
		}
		b.stop()
		there := []string{"secrets", "migrate", "--from", "internal", "--to", "hashicorp-vault"}
		back := []string{"secrets", "migrate", "--from", "hashicorp-vault", "--to", "internal"}

		stdout, screen := onTerminal(t, inVault, there...)
		require.Equal(t, "3 copied\n", stdout, "the report, and no bar")
		require.Regexp(t, moveBar, screen)
		require.Contains(t, screen, "[####################] 3 of 3")
		require.True(t, strings.HasSuffix(screen, "\r\x1b[K"), "the bar is taken off: %q", screen)
		require.NotContains(t, screen, "\n", "it stays on its line: %q", screen)

		stdout, screen = onTerminal(t, inVault, append(back, "--json")...)
		require.True(t, strings.HasPrefix(stdout, `{"command":"migrate"`) && strings.HasSuffix(stdout, "}\n"), stdout)
		require.NotContains(t, stdout, "\r")
		require.Contains(t, screen, "[####################] 3 of 3")

		// Without a terminal, lines, now and then: here of a Vault that is away for long enough.
		v.proxy.Down()
		p := launch(t, inVault, append(there, "--patience", "10m")...)
		eventually(t, "a line says how far it is", func() bool { return strings.Contains(p.log.String(), "migrate: 0 of 3") })
		v.proxy.Up()
		<-p.done
		require.Zero(t, p.cmd.ProcessState.ExitCode(), p.log.String())
		require.Regexp(t, `(?m)^migrate: 0 of 3.*; waiting: .+$`, p.log.String())
		require.True(t, strings.HasSuffix(p.log.String(), "\n3 copied\n"), p.log.String())
		require.NotContains(t, p.log.String(), "\r")
		require.NotRegexp(t, moveBar, p.log.String())
	})
	t.Run("keys rotate", func(t *testing.T) {
		t.Parallel()
		oldKey, newKey := randomKey("the-old-key-of-progress"), randomKey("the-new-key-of-progress")
		w := sqliteWorld(t)
		e := w.env.with(env{"ENCRYPTION_KEY": oldKey})
		command(t, e, 0, "migrate", "up")
		db, err := sql.Open("sqlite", strings.TrimPrefix(w.env["DATABASE_URL"], "sqlite:"))
		require.NoError(t, err)
		insertTokens(t, db, true, 300, oldKey)
		require.NoError(t, db.Close())

		e = e.with(env{"ENCRYPTION_KEY": newKey + "," + oldKey})
		stdout, screen := onTerminal(t, e, "keys", "rotate")
		require.Regexp(t, `(?m)^tokens +300 sealed under `, stdout)
		require.NotContains(t, stdout, "\r")
		drawn := rotationBar.FindAllStringSubmatch(screen, -1)
		require.NotEmpty(t, drawn, "%q", screen)
		require.Equal(t, []string{"tokens", "100", "300", "300"}, drawn[len(drawn)-1][1:], "the last of it")
		require.Contains(t, screen, "[==============================] 100% 300 of 300 \r\n", "it is left where it ended")

		stdout, screen = onTerminal(t, e, "keys", "rotate", "--json")
		require.JSONEq(t, stdout, stdout)
		require.Empty(t, screen)

		printed := command(t, e, 0, "keys", "rotate", "--dry-run")
		require.Contains(t, printed, "tokens: 300 of 300\n")
		require.NotContains(t, printed, "\r")
		require.NotContains(t, printed, "=]")
	})
}

// TestAnswersAtATerminal: whoever is asked at a terminal is waited for, and only a yes is
// one.
func TestAnswersAtATerminal(t *testing.T) {
	t.Parallel()
	path := plain.file(t)
	w := sqliteWorld(t)
	command(t, w.env, 0, "migrate", "up")
	for answer, want := range map[string]string{"n\n": "nothing was deleted", "\n": "nothing was deleted", "y\n": "nothing to do"} {
		cmd := exec.CommandContext(t.Context(), path, "secrets", "scrub", "--from", "internal")
		cmd.Env, cmd.Dir = w.env.list(), t.TempDir()
		end, err := pty.Start(cmd)
		require.NoError(t, err)
		screen := &servers.Log{}
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(screen, end)
		}()
		eventually(t, "it asks", func() bool { return strings.Contains(screen.String(), "[y/N] ") })
		time.Sleep(50 * time.Millisecond) // it does not go on by itself
		require.NotContains(t, screen.String(), "nothing")
		_, err = io.WriteString(end, answer)
		require.NoError(t, err)
		<-read
		_ = cmd.Wait() // its exit code says no more than its words
		require.NoError(t, end.Close())
		require.Contains(t, screen.String(), want, "after %q", answer)
	}
}
