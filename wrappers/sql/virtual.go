package sql

import (
	"context"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/virtual"
)

// serveVirtual is the server itself: tables of registers.
func (w *wrapper) serveVirtual(ctx context.Context, link wrappers.Link) error {
	return virtual.Serve(ctx, virtual.Options{Config: w.cfg, Database: w.database, State: sqlstate}, link)
}
