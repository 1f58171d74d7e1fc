package gateway

import (
	"log/slog"
	"slices"
	"time"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A Config is gateway.hcl and its mappings, read and checked.
type Config struct {
	File     string   // as given; "" when there is none
	Data     string   // directory
	Domains  []string // the QDomains, the default first
	Mappings []string // the files that were read, in name order
	Wrappers []WrapperBlock
	Users    []User
	Groups   map[string][]string // members by name
	Access   []AccessBlock
	Daemon   DaemonBlock
	Sites    SitesBlock
	Hubs     []HubBlock // of domains that ride on NATS
	Log      LogBlock
	MinFree  uint64        // bytes; below it writes are refused
	Drain    time.Duration // how long stopping may take

	Set    *mapping.Set
	Policy *Policy // nil: nothing is restricted
	// Implied are the wrappers that stand for a gateway.hcl where there is none.
	Implied []LinkInfo
	// Hash is over the text of all files: equal text, equal hash, on every machine.
	Hash string
}

// A WrapperBlock is one wrapper, checked; what its listener and upstreams need is open to read but
// not opened.
type WrapperBlock struct {
	Protocol    wrappers.Protocol
	Name        string
	Listen      []string // host:port
	Upstreams   []UpstreamBlock
	Base        string
	Refuse      bool // unmapped = "refuse"
	Anonymous   wrappers.Access
	TLS         *ListenTLS // nil: plain
	Limits      wrappers.Limits
	Options     wrappers.Options
	Drain       time.Duration
	CaptureWait time.Duration
	Feed        string // the gateway that alone is attached to the server; "": each

	source string // file:line
	// digest is equal for equal blocks, certificates' paths and the text of secrets included.
	digest string
}

// An UpstreamBlock is one real server of a wrapper.
type UpstreamBlock struct {
	Server   string // its key, "" with only one
	Scheme   string
	Addr     string // host:port, or a path for a Unix socket
	Path     string
	User     string
	Password Secret
	TLS      *DialTLS // nil: plain
}

// Links are what the wrappers' doors are opened with.
func (c *Config) Links() []LinkInfo {
	out := slices.Clone(c.Implied)
	for i := range c.Wrappers {
		out = append(out, c.Wrappers[i].link())
	}
	return out
}

func (w *WrapperBlock) link() LinkInfo {
	p := w.Protocol
	p.Feed = p.Feed && (p.Feedless == nil || !p.Feedless(w.Options))
	return LinkInfo{
		Protocol: p, Name: w.Name, Relay: w.Relay(), Attached: w.Attached(),
		CaptureWait: w.CaptureWait, Anonymous: w.Anonymous,
		Feed: w.Feed,
	}
}

// Relay, Virtual and Attached are the three ways to stand.
func (w *WrapperBlock) Relay() bool    { return len(w.Listen) > 0 && len(w.Upstreams) > 0 }
func (w *WrapperBlock) Virtual() bool  { return len(w.Listen) > 0 && len(w.Upstreams) == 0 }
func (w *WrapperBlock) Attached() bool { return len(w.Listen) == 0 }

// mode is the word for it.
func (w *WrapperBlock) mode() string {
	switch {
	case w.Relay():
		return "relay"
	case w.Virtual():
		return "virtual"
	default:
		return "attached"
	}
}

// A DaemonBlock says where the door for applications is.
type DaemonBlock struct {
	Socket    string // path
	WebSocket string // host:port for /healthz, /readyz and /metrics; "": none
}

// A LogBlock says what is logged and how.
type LogBlock struct {
	Level slog.Level
	JSON  bool
}

// The defaults of gateway.hcl.
const (
	DefaultFile        = "gateway.hcl"
	defaultData        = "spookgw-data"
	defaultDomain      = "local"
	defaultMappings    = "mappings.d/*.hcl"
	defaultMinFree     = 256 << 20
	defaultDrain       = 10 * time.Second
	defaultCaptureWait = 5 * time.Second
	maxConfigFile      = 4 << 20
	maxSecretFile      = 64 << 10
)

// defaultLimits are those of a wrapper block without limits.
var defaultLimits = wrappers.Limits{}.OrDefault()
