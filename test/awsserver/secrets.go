package awsserver

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The quotas of the service
// (https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html).
const (
	maxName     = 512
	maxValue    = 65536 // bytes
	maxVersions = 100   // of a secret; deprecated ones older than a day make room
	maxLabels   = 20    // attached to the versions of a secret
	maxTags     = 50
	maxBatch    = 20

	maxDescription = 2048
	maxKey         = 2048
)

// The staging labels that the service moves itself.
const (
	current  = "AWSCURRENT"
	previous = "AWSPREVIOUS"
)

// secretState is a secret.
type secretState struct {
	arn, name, description, kmsKey string
	created, changed, accessed     time.Time
	deleted                        time.Time // when it was scheduled; zero: it is not
	purgeAt                        time.Time // when it goes
	forced                         bool
	tags                           []tag
	versions                       []version
}

type version struct {
	id      string
	created time.Time
	text    *string
	binary  []byte
	labels  []string // in the order in which they came
}

type tag struct {
	Key   string
	Value string
}

func (s *secretState) clone() *secretState {
	if s == nil {
		return nil
	}
	c := *s
	c.tags = slices.Clone(s.tags)
	c.versions = slices.Clone(s.versions)
	for i := range c.versions {
		c.versions[i].labels = slices.Clone(c.versions[i].labels)
	}
	return &c
}

// same reports whether nothing has been written between the two.
func (s *secretState) same(o *secretState) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.arn == o.arn && s.changed.Equal(o.changed)
}

// record is what a name has held: the truth, and what readers see for a while.
type record struct {
	truth *secretState // nil: nothing
	past  []moment     // oldest first
}

// moment is the state that a write has left.
type moment struct {
	at    time.Time
	state *secretState
}

// purge removes the secrets whose time has come. It runs with the lock held.
func (s *Server) purge() {
	now := s.now()
	for _, r := range s.secrets {
		if t := r.truth; t != nil && !t.deleted.IsZero() && !now.Before(t.purgeAt) {
			r.truth = nil
			r.past = append(r.past, moment{t.purgeAt, nil})
		}
	}
}

// remember notes what a write has left, for readers that lag behind. It runs with the
// lock held.
func (s *Server) remember() {
	now := s.now()
	for _, r := range s.secrets {
		if s.settings.lag == 0 {
			r.past = nil
			continue
		}
		if last := len(r.past) - 1; last < 0 || !r.past[last].state.same(r.truth) {
			r.past = append(r.past, moment{now, r.truth.clone()})
		}
		// All but one of those that every reader sees by now are of no use.
		for len(r.past) > 1 && now.Sub(r.past[1].at) >= s.settings.lag {
			r.past = r.past[1:]
		}
	}
}

// seen is what a reader sees of a record.
func (s *Server) seen(r *record) *secretState {
	if s.settings.lag == 0 || len(r.past) == 0 {
		return r.truth
	}
	now := s.now()
	var state *secretState
	for _, m := range r.past {
		if now.Sub(m.at) >= s.settings.lag {
			state = m.state
		}
	}
	return state
}

var (
	legalName  = regexp.MustCompile(`^[A-Za-z0-9/_+=.@!-]+$`)
	arnEnding  = regexp.MustCompile(`-[A-Za-z0-9]{6}$`)
	legalToken = regexp.MustCompile(`^.{32,64}$`)
)

const arnStart = "arn:aws:secretsmanager:" + Region + ":" + Account + ":secret:"

func notFound() *apiError {
	return refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}

func markedForDeletion() *apiError {
	return refuse("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
}

// find returns what id names, a name or an ARN with or without its ending: as it really
// is for a write, as it is seen for a read. It checks the right to action first: a
// secret that is not there is hidden from who has no right to it.
func (s *Server) find(c *call, id string, read bool) (*secretState, error) {
	if id == "" || len(id) > 2048 {
		return nil, refuse("ValidationException", "1 validation error detected: Value at 'secretId' failed to satisfy constraint: Member must have length between 1 and 2048")
	}
	found := s.lookUp(id, read)
	resource := arnStart + strings.TrimPrefix(id, arnStart)
	if found != nil {
		resource = found.arn
	} else if !strings.HasPrefix(id, "arn:") {
		resource += "-??????"
	}
	if err := s.need(c, c.action, resource, id); err != nil {
		return nil, err
	}
	if found == nil {
		return nil, notFound()
	}
	return found, nil
}

func (s *Server) lookUp(id string, read bool) *secretState {
	state := func(r *record) *secretState {
		if read {
			return s.seen(r)
		}
		return r.truth
	}
	if !strings.HasPrefix(id, "arn:") {
		if r := s.secrets[id]; r != nil {
			return state(r)
		}
		return nil
	}
	for _, r := range s.secrets {
		if x := state(r); x != nil && x.arn == id {
			return x
		}
	}
	// What ends like a complete ARN is taken for one: that is why a name should not end
	// in a hyphen and six characters.
	name, ok := strings.CutPrefix(id, arnStart)
	if r := s.secrets[name]; ok && r != nil && !arnEnding.MatchString(name) {
		return state(r)
	}
	return nil
}

// live is find for operations that a secret scheduled for deletion refuses.
func (s *Server) live(c *call, id string, read bool) (*secretState, error) {
	found, err := s.find(c, id, read)
	if err != nil {
		return nil, err
	}
	if !found.deleted.IsZero() {
		return nil, markedForDeletion()
	}
	return found, nil
}

// labelled returns the version that carries label, nil if none does.
func (s *secretState) labelled(label string) *version {
	for i := range s.versions {
		if slices.Contains(s.versions[i].labels, label) {
			return &s.versions[i]
		}
	}
	return nil
}

func (s *secretState) version(id string) *version {
	for i := range s.versions {
		if s.versions[i].id == id {
			return &s.versions[i]
		}
	}
	return nil
}

// attach moves label to v, and AWSPREVIOUS to where AWSCURRENT was.
func (s *secretState) attach(label string, v *version) {
	from := s.labelled(label)
	if from == v {
		return
	}
	s.detach(label)
	v.labels = append(v.labels, label)
	if label == current && from != nil {
		s.detach(previous)
		from.labels = append(from.labels, previous)
	}
}

func (s *secretState) detach(label string) {
	for i := range s.versions {
		v := &s.versions[i]
		v.labels = slices.DeleteFunc(v.labels, func(l string) bool { return l == label })
	}
}

// stages is the map of versions to labels that DescribeSecret shows: without the
// versions that have none.
func (s *secretState) stages() map[string][]string {
	m := map[string][]string{}
	for _, v := range s.versions {
		if len(v.labels) > 0 {
			m[v.id] = v.labels
		}
	}
	return maps.Clone(m)
}

func (s *secretState) labels() int {
	n := 0
	for _, v := range s.versions {
		n += len(v.labels)
	}
	return n
}
