package broker

// SealedSample is a sealed value of the database, with what is needed to open it.
type SealedSample struct {
	Purpose string // what it was sealed for
	Sealed  string
}
