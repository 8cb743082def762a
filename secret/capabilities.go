package secret

import "context"

// BatchReader is implemented by backends that can read several keys in one request.
type BatchReader interface {
	// ReadBatch reads every key and returns an outcome for each, in their order, also if
	// a key comes twice. Each outcome is what Get would have said of that key: a key that
	// is missing, illegal or denied spoils no other one. It has the version of the value
	// as Read would tell it, and never its owner. Of more keys than the store takes at
	// once, the backend makes more requests. If ctx ends, every outcome that is not known
	// wraps ctx.Err(). A refusal of the request as a whole (a store whose policy allows
	// single reads only) is the backend's to deal with, by reading one key after the
	// other.
	ReadBatch(ctx context.Context, keys []string) []Outcome
}

// Outcome is what reading one key of a batch has given: an Item, or the error and the
// zero Item.
type Outcome struct {
	Item Item
	Err  error
}

// Capabilities is a backend with what it can do beyond the three methods. A field is
// nil for what it cannot do.
//
// A program finds them with CapabilitiesOf, and not by type assertions of its own:
// so a decorator can hand on what the backend below it can do, and nothing else.
type Capabilities struct {
	SecretBackend
	Owned      OwnedBackend
	Versions   VersionRemover
	Remnants   RemnantRemover
	Locator    Locator
	Prober     Prober
	Batch      BatchReader
	References ReferenceReader
	Diagnoser  Diagnoser
	Policies   PolicyWriter
}

// CapabilitiesOf returns what b can do. If b is a Capabilities, it is returned as it is.
func CapabilitiesOf(b SecretBackend) Capabilities {
	if c, ok := b.(Capabilities); ok {
		return c
	}
	c := Capabilities{SecretBackend: b}
	c.Owned, _ = b.(OwnedBackend)
	c.Versions, _ = b.(VersionRemover)
	c.Remnants, _ = b.(RemnantRemover)
	c.Locator, _ = b.(Locator)
	c.Prober, _ = b.(Prober)
	c.Batch, _ = b.(BatchReader)
	c.References, _ = b.(ReferenceReader)
	c.Diagnoser, _ = b.(Diagnoser)
	c.Policies, _ = b.(PolicyWriter)
	return c
}
