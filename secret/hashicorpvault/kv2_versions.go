package hashicorpvault

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
)

// maxGuessed bounds how many versions are destroyed by number where the metadata
// may not be read. An engine keeps 10 if it is not told otherwise.
const maxGuessed = 1000

// versions returns the versions that hold something: from the metadata, or, where no
// policy allows to read them, all up to the newest one.
func (e kv2) versions(ctx context.Context, key string) ([]int, error) {
	r := request{method: http.MethodGet, path: e.path("metadata", key)}
	a, err := e.b.call(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case a.missing():
		return nil, nil
	case a.denied():
		return e.guessVersions(ctx, key)
	case !a.ok():
		return nil, fault(a, r, nil)
	}
	var metadata struct {
		Versions map[string]struct {
			Destroyed bool `json:"destroyed"`
		} `json:"versions"`
	}
	if json.Unmarshal(a.data, &metadata) != nil {
		return nil, errNotKV
	}
	var numbers []int
	for name, v := range metadata.Versions {
		if n, err := strconv.Atoi(name); err == nil && !v.Destroyed {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (e kv2) guessVersions(ctx context.Context, key string) ([]int, error) {
	newest, err := e.read(ctx, key)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for n := max(1, newest.version-maxGuessed+1); n <= newest.version; n++ {
		numbers = append(numbers, n)
	}
	return numbers, nil
}
