package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// A Secret is text that no log, error or dump shows: whatever prints it prints ***. Only Reveal
// gives it away.
type Secret struct {
	// A pointer: in a field that is not exported, fmt calls no method and prints what it finds.
	text *string
}

// NewSecret keeps text secret.
func NewSecret(text string) Secret { return Secret{&text} }

const masked = "***"

// Reveal gives the text: for the one call that hands it to a server.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty tells whether there is no secret.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Equal compares in a time that depends on neither text.
func (s Secret) Equal(text string) bool {
	a, b := sha256.Sum256([]byte(s.Reveal())), sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String, GoString, Format, MarshalText, MarshalJSON and LogValue cover every way Go prints a value.
func (Secret) String() string               { return masked }
func (Secret) GoString() string             { return masked }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, masked) }
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + masked + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(masked) }
