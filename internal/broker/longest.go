package broker

import "time"

// LongestChange is how long a change of one provider takes at worst, when its secret
// backend takes its whole time for every call and the database fails at the end: the
// operation, finding out what became of it, and taking it back. What a database adds that
// answers slowly is guessed.
func (c Config) LongestChange() time.Duration {
	operation := callsPerOp * c.SecretTimeout
	return operation + operation/2 + operation + 10*time.Second
}
