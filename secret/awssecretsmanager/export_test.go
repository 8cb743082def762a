package awssecretsmanager

// The encoding of names, for its properties.
var (
	Encode = encode
	Decode = decode
)
