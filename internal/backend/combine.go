package backend

import "github.com/nexus-broker/nexus-broker/secret"

// What a backend can do is told by the methods that it has: each combination is a
// type of its own. The functions below add to a decorated backend what b has beside.

func combine(d plain, b secret.SecretBackend, c *caller) secret.SecretBackend {
	locator, isLocator := b.(secret.Locator)
	prober, isProber := b.(secret.Prober)
	p := probed{c, prober}
	switch {
	case isLocator && isProber:
		return struct {
			plain
			secret.Locator
			probed
		}{d, locator, p}
	case isLocator:
		return struct {
			plain
			secret.Locator
		}{d, locator}
	case isProber:
		return struct {
			plain
			probed
		}{d, p}
	}
	return d
}

func combineOwned(d owned, b secret.SecretBackend, c *caller) secret.SecretBackend {
	locator, isLocator := b.(secret.Locator)
	prober, isProber := b.(secret.Prober)
	p := probed{c, prober}
	switch {
	case isLocator && isProber:
		return struct {
			owned
			secret.Locator
			probed
		}{d, locator, p}
	case isLocator:
		return struct {
			owned
			secret.Locator
		}{d, locator}
	case isProber:
		return struct {
			owned
			probed
		}{d, p}
	}
	return d
}

func combineVersioned(d versioned, b secret.SecretBackend, c *caller) secret.SecretBackend {
	locator, isLocator := b.(secret.Locator)
	prober, isProber := b.(secret.Prober)
	p := probed{c, prober}
	switch {
	case isLocator && isProber:
		return struct {
			versioned
			secret.Locator
			probed
		}{d, locator, p}
	case isLocator:
		return struct {
			versioned
			secret.Locator
		}{d, locator}
	case isProber:
		return struct {
			versioned
			probed
		}{d, p}
	}
	return d
}
