package credentials

import (
	"strconv"
	"strings"

	"github.com/google/uuid"
)

const ownerPrefix = "nexus-broker/"

// restoredMark is the mark of a value of somebody else's that had none, that the broker was
// told to overwrite, and that it has put back. It is no Owner.
const restoredMark = ownerPrefix + "restored"

// Owner is the mark that the broker stores with a value, to be able to prove later
// that the value is its own. The zero Owner is no mark.
type Owner struct {
	ProviderID uuid.UUID
	// Generation is the credentials generation of the change that wrote the value: the
	// one that the provider's row has once the change is published.
	Generation int64
}

// String returns "nexus-broker/<provider id>/<generation>", as it is stored.
func (o Owner) String() string {
	return ownerPrefix + o.ProviderID.String() + "/" + strconv.FormatInt(o.Generation, 10)
}

// ParseOwner reads what String has written and nothing else; false for a mark of
// somebody else and for none.
func ParseOwner(mark string) (Owner, bool) {
	rest, ok := strings.CutPrefix(mark, ownerPrefix)
	if !ok {
		return Owner{}, false
	}
	id, generation, ok := strings.Cut(rest, "/")
	if !ok {
		return Owner{}, false
	}
	var o Owner
	var err error
	if o.ProviderID, err = uuid.Parse(id); err != nil {
		return Owner{}, false
	}
	if o.Generation, err = strconv.ParseInt(generation, 10, 64); err != nil {
		return Owner{}, false
	}
	if o.String() != mark {
		return Owner{}, false // another spelling is not ours
	}
	return o, true
}

// covers reports whether mark proves a value to be o's: the same provider, and
// written by this generation or an earlier one. A later generation is another,
// newer value, which a late deletion must not hit.
func (o Owner) covers(mark string) bool {
	m, ok := ParseOwner(mark)
	return ok && m.ProviderID == o.ProviderID && m.Generation <= o.Generation
}

// previous is the mark of the values that a change replaces, given back to them
// when the change is undone.
func (o Owner) previous() Owner {
	return Owner{ProviderID: o.ProviderID, Generation: o.Generation - 1}
}
