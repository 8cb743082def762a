package nexusbroker

import _ "embed"

// ManifestSchema is the JSON schema of the manifests that "nexus-broker providers"
// reads and writes.
//
//go:embed docs/manifest.schema.json
var ManifestSchema []byte
