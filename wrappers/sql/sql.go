// Package sql is the PostgreSQL wrapper: a byte-transparent relay in front of a real server, a
// client of one that hears every committed row by logical replication and writes rows (both:
// attached), and a server of its own (virtual).
package sql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/virtual"
)

// Protocol is what the gateway knows of PostgreSQL's protocol.
var Protocol = wrappers.Protocol{
	Name:     "sql",
	Syntax:   syntax,
	Feed:     true,
	Feedless: func(o wrappers.Options) bool { return o.String("capture") == captureStatements },
	Frame:    256 << 20, // it is passed on as it comes, and not held
	Schemes: []wrappers.Scheme{
		{Name: "postgres", Port: 5432}, {Name: "postgresql", Port: 5432}, {Name: "postgres+tls", Port: 5432, TLS: true},
	},
	Upstream: "gateway@%s/postgres",
	Settings: []wrappers.Setting{
		{Name: "capture", Kind: wrappers.StringSetting, Default: "async", Enum: []string{"async", "sync", captureStatements},
			Doc: "whether a client of the relay is told of a commit at once (async), or when the registers have it (sync). Where the server gives no logical replication: statements, after which the tables are read again"},
		{Name: "poll_ms", Kind: wrappers.IntSetting, Default: int64(10_000), Min: 100, Max: 86_400_000,
			Doc: "with capture = \"statements\": how often the tables are looked at for what no statement said"},
		{Name: "capture_wait_ms", Kind: wrappers.IntSetting, Default: int64(5000), Min: 1, Max: 600_000,
			Doc: "how long a commit waits at most with capture = \"sync\""},
		{Name: "attribute", Kind: wrappers.StringSetting, Default: "probable", Enum: []string{"probable", "exact", "off"},
			Doc: "whether it is found out which client of the relay changed a row: by session, table and time (probable), by a message that is written into the client's transaction (exact), or not at all"},
		{Name: "slot", Kind: wrappers.StringSetting, Default: "",
			Doc: "name of the replication slot and of the publication; by default made of the gateway's own name"},
		{Name: "max_lost", Kind: wrappers.IntSetting, Default: int64(50), Min: 0, Max: 100,
			Doc: "how many percent of a table's rows may have gone while the gateway did not listen; beyond it their registers stay"},
		{Name: "database", Kind: wrappers.StringSetting, Default: "",
			Doc: "the database, where the upstream's address names none; of a virtual server, the one name it answers to"},
	},
	Bind: []wrappers.Setting{
		{Name: virtual.ColumnsOption, Kind: wrappers.StringsSetting,
			Doc: "of a virtual server: the columns of the table beside what the types of fields say, as in [\"value numeric\", \"at timestamptz\"]. An open register has those that are named here"},
	},
	New: New,
	Demo: wrappers.Demo{
		Listen: "127.0.0.1:15432",
		Lines: []string{
			`psql "host=127.0.0.1 port=15432 dbname=plant" -c "INSERT INTO sensors VALUES ('oven-3', 'berlin', 21.5) ON CONFLICT (sensor, site) DO UPDATE SET value = excluded.value"`,
			`psql "host=127.0.0.1 port=15432 dbname=plant" -c "SELECT * FROM sensors"`,
		},
	},
}

// wrapper is what the three ways share.
type wrapper struct {
	cfg         wrappers.Config
	sync        bool
	statements  bool
	poll        time.Duration
	captureWait time.Duration
	attribute   string
	slot        string // of the replication slot and the publication
	database    string
	maxLost     int64 // percent
}

// New makes the wrapper that a Config describes.
func New(cfg wrappers.Config) (wrappers.Wrapper, error) {
	if cfg.Packet != nil {
		return nil, errors.New("sql listens on TCP only")
	}
	if len(cfg.Upstreams) > 1 {
		return nil, fmt.Errorf("sql has one upstream, not %d: use one wrapper for each server", len(cfg.Upstreams))
	}
	w := &wrapper{
		cfg: cfg, sync: cfg.Options.String("capture") == "sync", attribute: cfg.Options.String("attribute"),
		captureWait: time.Duration(cfg.Options.Int("capture_wait_ms")) * time.Millisecond,
		slot:        cfg.Options.String("slot"), database: cfg.Options.String("database"),
	}
	w.statements = cfg.Options.String("capture") == captureStatements
	w.poll = time.Duration(cfg.Options.Int("poll_ms")) * time.Millisecond
	if w.poll <= 0 {
		w.poll = 10 * time.Second
	}
	if w.statements && w.attribute != "" && w.attribute != "probable" {
		return nil, fmt.Errorf("capture = %q is told of writes by the statements that pass, so attribute is \"probable\": %q wants none of them, or a server with logical replication", captureStatements, w.attribute)
	}
	w.maxLost = 50
	if n, ok := cfg.Options["max_lost"].(int64); ok {
		w.maxLost = n
	}
	if w.captureWait <= 0 {
		w.captureWait = 5 * time.Second
	}
	if w.attribute == "" {
		w.attribute = "probable"
	}
	w.cfg.Limits = w.cfg.Limits.OrDefault()
	if len(cfg.Upstreams) == 1 {
		if path := strings.Trim(cfg.Upstreams[0].Path, "/"); path != "" {
			w.database = path
		}
		switch {
		case w.database == "":
			return nil, errors.New("which database? Write it behind the upstream's address, as in postgres://gateway@10.0.0.6/erp")
		case cfg.Upstreams[0].User == "":
			return nil, errors.New("the gateway needs a user of its own at the server: postgres://gateway@10.0.0.6/erp")
		}
		if w.slot == "" {
			w.slot = slotName(cfg.Endpoint, cfg.Name)
		}
		if err := checkSlotName(w.slot); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Serve implements wrappers.Wrapper.
func (w *wrapper) Serve(ctx context.Context, link wrappers.Link) error {
	if w.cfg.Virtual() {
		return w.serveVirtual(ctx, link)
	}
	return w.serveUpstream(ctx, link)
}

func (w *wrapper) log() *slog.Logger {
	if w.cfg.Log == nil {
		return slog.Default()
	}
	return w.cfg.Log
}

// mostSlotName is PostgreSQL's limit (NAMEDATALEN - 1).
const mostSlotName = 63

// slotName makes the name under which this gateway is known to the server.
func slotName(endpoint, wrapper string) string {
	id := endpoint[strings.LastIndexByte(endpoint, '/')+1:]
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, strings.ToLower(s))
	}
	name := "spookgw_" + clean(id[:min(8, len(id))]) + "_" + clean(wrapper)
	return name[:min(len(name), mostSlotName)]
}

func checkSlotName(name string) error {
	bad := strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_')
	})
	if bad || name == "" || len(name) > mostSlotName {
		return fmt.Errorf("slot: a name is 1 to %d small letters, digits and underscores: %q", mostSlotName, name)
	}
	return nil
}
