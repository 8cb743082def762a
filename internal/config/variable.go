package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"
)

// variable is a row of the table: one environment variable.
type variable struct {
	name string
	def  string // what the variable would be set to to say the same
	// secret: the value is never shown, and NAME_FILE may name a file that holds it.
	secret bool
	// ownFile: NAME_FILE is a row of its own, read again while the broker runs.
	ownFile  bool
	required bool
	want     string // what a right value looks like; "" where set says it
	// only are the selections under which the variable is read.
	only []selection
	// set parses text and stores it. It returns nil, or what is wrong (without the
	// Variable). It is called for a default too.
	set setter
}

type setter func(c *Config, text string) *Problem

// selection is satisfied when the effective value of variable is value.
type selection struct{ variable, value string }

// loader reads rows of the table and collects what is wrong.
type loader struct {
	opts     Options
	env      map[string]string
	dev      devDefaults
	cfg      Config
	problems Problems
	// effective are the values in force, by name, of the rows read without a problem.
	effective map[string]string
}

func newLoader(environ []string, o Options) *loader {
	l := &loader{opts: o, env: map[string]string{}, effective: map[string]string{}}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if _, seen := l.env[name]; !seen { // the first one counts, as in os.Getenv
			l.env[name] = value
		}
	}
	if o.Dev {
		l.dev = newDevDefaults(o, l.env)
		l.cfg.Dev = Dev{Enabled: true, Dir: l.dev.dir}
	}
	return l
}

func (l *loader) read(table []variable) {
	for _, v := range table {
		if l.selected(v) {
			l.readOne(v)
		}
	}
}

// selected reports whether v is to be read. If it is set all the same, that is
// worth a warning.
func (l *loader) selected(v variable) bool {
	for _, s := range v.only {
		chosen, known := l.effective[s.variable]
		if chosen == s.value {
			continue
		}
		if known {
			for _, name := range v.names() {
				if l.env[name] != "" {
					l.warn("%s is set but %s=%s", name, s.variable, chosen)
				}
			}
		}
		return false
	}
	return true
}

// names returns the environment variables that v is read from.
func (v variable) names() []string {
	if v.secret && !v.ownFile {
		return []string{v.name, v.name + "_FILE"}
	}
	return []string{v.name}
}

func (l *loader) readOne(v variable) {
	text, source, ok := l.lookup(v)
	if !ok {
		return
	}
	l.cfg.Settings = append(l.cfg.Settings, Setting{Name: v.name, Value: v.shown(text), Source: source})
	if p := v.store(&l.cfg, text); p != nil {
		l.problem(v.name, p.Wrong, p.Want)
		return
	}
	l.effective[v.name] = text
}

// store parses text into c, or says what is wrong with it.
func (v variable) store(c *Config, text string) *Problem {
	if text == "" {
		if v.required {
			return invalid("is not set", v.want)
		}
		return nil
	}
	p := v.set(c, text)
	if p != nil && v.want != "" {
		p.Want = v.want
	}
	return p
}

// shown returns what a person may see of a value, on one line.
func (v variable) shown(text string) string {
	switch {
	case v.secret && text == "":
		return "unset"
	case v.secret || strings.ContainsFunc(text, unicode.IsControl): // PEM text, for one
		return "set"
	}
	return text
}

// lookup returns what v is to be set to, "" if nothing. ok is false if that could
// not be found out, which has been reported.
func (l *loader) lookup(v variable) (text string, source Source, ok bool) {
	text = l.env[v.name]
	if v.secret && !v.ownFile {
		if path := l.env[v.name+"_FILE"]; path != "" {
			if text != "" {
				l.problem(v.name, "and "+v.name+"_FILE are both set", "set one of them")
				return "", "", false
			}
			text, ok = l.readSecretFile(v.name+"_FILE", path)
			return text, FromFile, ok
		}
	}
	if !v.secret {
		text = strings.TrimSpace(text)
	}
	if text != "" {
		return text, FromEnv, true
	}
	if def, found, err := l.dev.value(v.name); err != nil {
		l.problem(v.name, "cannot be kept for --dev ("+reason(err)+")", "set it, or make the folder "+l.dev.dir+" writable and its key files readable")
		return "", "", false
	} else if found {
		return def, FromDev, true
	}
	return v.def, FromDefault, true
}

// readSecretFile returns the content of a mounted file, without its trailing newline.
func (l *loader) readSecretFile(name, path string) (text string, ok bool) {
	const want = "name a readable file that holds the value"
	b, err := os.ReadFile(path)
	if err != nil {
		l.problem(name, "names a file that cannot be read ("+reason(err)+")", want)
		return "", false
	}
	text = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if text == "" {
		l.problem(name, "names a file that is empty", want)
		return "", false
	}
	return text, true
}

// reason says what is wrong with a file, without its path.
func reason(err error) string {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err.Error()
	case errors.As(err, &l):
		return l.Err.Error()
	}
	return err.Error()
}

// problem reports what is wrong with a variable. A wrong value is not shown as a
// setting either: it may be a password in the wrong place.
func (l *loader) problem(variable, wrong, want string) {
	if l.isSet(variable) {
		l.show(variable, "invalid")
	}
	l.problems = append(l.problems, Problem{Variable: variable, Wrong: wrong, Want: want})
}

func (l *loader) warn(format string, args ...any) {
	l.cfg.Warnings = append(l.cfg.Warnings, fmt.Sprintf(format, args...))
}

// isSet reports whether the environment says anything of the variable.
func (l *loader) isSet(name string) bool { return l.env[name] != "" }

// show corrects the shown value of a variable whose default depends on others.
func (l *loader) show(name, value string) {
	for i := range l.cfg.Settings {
		if l.cfg.Settings[i].Name == name {
			l.cfg.Settings[i].Value = value
		}
	}
}

// showDev is show of a variable whose default is another one with --dev.
func (l *loader) showDev(name, value string) {
	l.show(name, value)
	for i := range l.cfg.Settings {
		if s := &l.cfg.Settings[i]; s.Name == name && l.opts.Dev && s.Source == FromDefault {
			s.Source = FromDev
		}
	}
}

func (l *loader) result() (Config, error) {
	if len(l.problems) > 0 {
		return l.cfg, l.problems
	}
	return l.cfg, nil
}
