package credentials

// Cached returns how many places the cache holds a value of.
func Cached(s *Service) int {
	n := 0
	for _, e := range s.cache.entries.All() {
		if !e.tombstone {
			n++
		}
	}
	return n
}
