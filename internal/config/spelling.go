package config

import "slices"

// checkSpelling warns of variables that are almost one of ours. It is a kindness:
// a misspelt VAULT_PATH_PREFX would silently mean its default.
func (l *loader) checkSpelling() {
	var known []string
	for _, v := range variables() {
		known = append(known, v.names()...)
	}
	var unknown []string
	for name, value := range l.env {
		if value != "" && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		for _, k := range known {
			if likely(name, k) {
				l.warn("%s is set and means nothing: is %s meant?", name, k)
				break
			}
		}
	}
}

// likely reports whether name is k with one or two slips. Short names are too
// close to others for that.
func likely(name, k string) bool {
	const shortest, slips = 9, 2
	longer := len(name) - len(k)
	return len(k) >= shortest && -slips <= longer && longer <= slips && distance(name, k) <= slips
}

// distance is Levenshtein's: how many bytes to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
