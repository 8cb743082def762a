package config

// LoadMigration reads what opening the database needs, and ENCRYPTION_KEY, which may be
// left out: only the database of an earlier broker needs it. The rest of the Config is zero.
func LoadMigration(environ []string, o Options) (Config, error) {
	l := newLoader(environ, o)
	variables := databaseVariables()
	for _, v := range keyVariables() {
		if v.name == "ENCRYPTION_KEY" {
			v.required = false
			variables = append(variables, v)
		}
	}
	l.read(variables)
	l.checkDatabase()
	l.prepareDev()
	return l.result()
}
