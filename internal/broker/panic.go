package broker

import "runtime"

// PanicText describes the value of a panic that was recovered, for the log. Only the
// runtime's own are shown: any other might hold what the call was about.
func PanicText(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return err.Error()
	}
	return "a panic with a value that is not shown"
}
