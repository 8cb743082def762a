// Package nexusbroker holds what lies at the root of the repository and is built
// into the program: the contract of its HTTP API.
package nexusbroker

import _ "embed"

// OpenAPI is openapi.yaml, the contract of the HTTP API (OpenAPI 3.1).
//
//go:embed openapi.yaml
var OpenAPI []byte
