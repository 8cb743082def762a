package hashicorpvault

// TrustNoToken makes b behave as if the token in use were older than unprovenFor.
func TrustNoToken(b *VaultBackend) { b.auth.unproven = 0 }
