package ldap

import (
	"context"

	"github.com/spooksystems/gateway/wrappers"
)

// A source is the attached side as a relay sees it: it hears what the server has, and writes what others
// changed.
type source interface {
	// Serve works until ctx ends. It is the relay's to call.
	Serve(ctx context.Context, link wrappers.Link) error

	// CaughtUp returns when all that the server had committed when it was called is durable here, by the
	// feed. Calls share what they ask the server. An error: it could not be found out, or ctx ended.
	CaughtUp(ctx context.Context) error
}
