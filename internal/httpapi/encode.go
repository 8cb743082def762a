package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/secret"
)

const typeJSON = "application/json"

// writeJSON answers v. When it returns an error nothing was written.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var buf bytes.Buffer
	if err := newEncoder(&buf).Encode(v); err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	w.Header().Set("Content-Type", typeJSON)
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // an error means that the caller has gone
	return nil
}

// writeList answers a JSON array. Of a long list it holds the answer, which is shorter
// than the rows, and it holds it whole: a caller who reads slowly keeps no connection to
// the database busy, and half a list never passes for a whole one. When it returns an
// error nothing was written.
func writeList[T any](w http.ResponseWriter, items broker.Listing[T], view func(T) any) error {
	var buf bytes.Buffer
	enc := newEncoder(&buf)
	buf.WriteByte('[')
	separator := ""
	for item, err := range items {
		if err != nil {
			return err
		}
		buf.WriteString(separator)
		if err := enc.Encode(view(item)); err != nil {
			return fmt.Errorf("encoding an element of the answer: %w", err)
		}
		separator = ","
	}
	buf.WriteString("]\n")
	w.Header().Set("Content-Type", typeJSON)
	_, _ = buf.WriteTo(w) // an error means that the caller has gone
	return nil
}

func newEncoder(buf *bytes.Buffer) *json.Encoder {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false) // "&" in a URL stays "&"; no answer is embedded in HTML
	return enc
}

// redirect sends the browser to url, which is complete and has been allowed by the
// domain. It is not touched: http.Redirect would resolve what it takes for relative.
func redirect(w http.ResponseWriter, url string) error {
	if url == "" || strings.ContainsFunc(url, unicode.IsControl) {
		return errors.New("the flow's redirect is no URL")
	}
	w.Header().Set("Location", url)
	w.WriteHeader(http.StatusFound)
	return nil
}

// shown is a secret that this answer is meant to carry: JSON has it in clear, and
// every other way to print it shows nothing.
type shown struct{ secret.Value }

// MarshalJSON implements json.Marshaler. Like everything else in an answer the text is
// not escaped for HTML.
func (s shown) MarshalJSON() ([]byte, error) {
	var buf bytes.Buffer
	if err := newEncoder(&buf).Encode(s.Reveal()); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
