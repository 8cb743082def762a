package config

import "slices"

// Move is what moving credentials between two secret backends needs.
type Move struct {
	Config         // the database, the keys and the log
	From   Secrets // as if SECRET_BACKEND named the source
	To     Secrets // as if it named the target; Scrub's is that of SECRET_BACKEND
}

// LoadMove reads what moving credentials between two backends needs, as Load does.
// SECRET_BACKEND is not read: from and to stand for it.
func LoadMove(environ []string, from, to string, o Options) (Move, error) {
	l := newLoader(environ, o)
	l.read(slices.Concat(databaseVariables(), keyVariables()))
	l.readNamed(serverVariables(), "LOG_LEVEL", "LOG_FORMAT")
	l.checkDatabase()
	l.checkKeys()
	l.prepareDev()
	c, _ := l.result()
	problems := l.problems
	var sides [2]Secrets
	for i, name := range []string{from, to} {
		side, wrong := LoadNamedBackend(environ, name)
		sides[i] = side
		for _, p := range wrong {
			if !slices.Contains(problems, p) {
				problems = append(problems, p)
			}
		}
	}
	if len(problems) > 0 {
		return Move{}, problems
	}
	return Move{Config: c, From: sides[0], To: sides[1]}, nil
}

// LoadNamedBackend reads what the named secret backend needs, whatever SECRET_BACKEND
// says, and returns what is wrong with it.
func LoadNamedBackend(environ []string, name string) (Secrets, Problems) {
	l := newLoader(environ, Options{Inspect: true})
	l.env["SECRET_BACKEND"] = name
	l.read(backendVariables())
	l.checkBackends()
	return l.cfg.Secrets, l.problems
}

// readNamed reads some rows of a table.
func (l *loader) readNamed(table []variable, names ...string) {
	for _, v := range table {
		if slices.Contains(names, v.name) {
			l.readOne(v)
		}
	}
}
