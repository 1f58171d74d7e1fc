package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// Sources is where configuration is read from: the disk, or what the demo carries in itself.
type Sources interface {
	ReadFile(path string) ([]byte, error)
	Glob(pattern string) ([]string, error)
}

// Disk is the file system as Sources.
type Disk struct{}

// ReadFile reads a file of at most 4 MiB.
func (Disk) ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err == nil && len(b) > maxConfigFile {
		err = fmt.Errorf("%s: larger than %s", path, FormatSize(maxConfigFile))
	}
	return b, err
}

// Glob is filepath.Glob.
func (Disk) Glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }

// A LoadRequest says what to load.
type LoadRequest struct {
	File      string   // gateway.hcl; "": the defaults, no wrapper
	Mappings  []string // instead of what File names: for `validate FILES`
	Sources   Sources  // nil: the disk
	Protocols []wrappers.Protocol
	// Implied: every protocol has a wrapper, of its own name; for mappings without a gateway.hcl.
	Implied bool
	// Bare: the file need not be there, and a configuration without a wrapper is no mistake.
	Bare bool
}

// laterProtocols are those of the design that this version does not speak, so that their blocks
// are refused by name rather than as misspelt.
var laterProtocols = []string{"coap", "smb", "ssh"}

// LoadConfig reads and checks everything: gateway.hcl, the mappings, what they name. All mistakes
// come at once in the Report. The Config is nil if there is an error among them.
func LoadConfig(req LoadRequest) (*Config, diag.Diagnostics) {
	if req.Sources == nil {
		req.Sources = Disk{}
	}
	l := &loader{
		req:    req,
		dir:    ".",
		config: &Config{File: req.File},
		digest: sha256.New(),
	}
	var files []diag.File
	if req.File != "" {
		l.dir = filepath.Dir(req.File)
		src, err := req.Sources.ReadFile(req.File)
		switch {
		case err == nil:
			_, _ = l.digest.Write(src)
			files = append(files, diag.File{Name: req.File, Bytes: src})
		case !req.Bare || !errors.Is(err, fs.ErrNotExist):
			l.failures = append(l.failures, failure("GW001", "can't read the configuration", err.Error()))
		}
	}
	l.reading = newReading(l.dir, req.Sources, diag.NewLog(files))
	l.Hints = foreignHint
	l.defaults()
	for _, src := range l.Parse() {
		l.gateway(src.Body)
	}
	if req.Implied {
		for _, p := range req.Protocols {
			l.infos = append(l.infos, mapping.WrapperInfo{Protocol: p, Name: p.Name, Upstream: true, Listens: true, Implied: true})
			l.config.Implied = append(l.config.Implied, LinkInfo{Protocol: p, Name: p.Name, Anonymous: wrappers.WriteAccess})
		}
	}
	l.mappings()
	found := append(l.failures, l.Diagnostics()...)
	found = append(found, l.mapped...)
	for _, d := range found {
		d.Line = maskSecrets(d.Line)
	}
	if found.HasErrors() {
		return nil, found
	}
	l.config.Hash = hex.EncodeToString(l.digest.Sum(nil)[:6])
	return l.config, found
}

// failure is a finding that no line is to blame for.
func failure(code diag.Code, summary, detail string) *diag.Diagnostic {
	return &diag.Diagnostic{Code: code, Severity: diag.Error, Summary: summary, Detail: detail}
}

var (
	secretLine = regexp.MustCompile(`(\bpassword\s*=\s*")((?:[^"\\]|\\.)*)`)
	secretURL  = regexp.MustCompile(`(://[^\s"/@:]*:)([^\s"/@]+)(@)`)
)

// maskSecrets keeps a source line that a finding shows from showing a password that stands in it.
// Columns stay where they are.
func maskSecrets(line string) string {
	stars := func(re *regexp.Regexp) {
		line = re.ReplaceAllStringFunc(line, func(s string) string {
			m := re.FindStringSubmatch(s)
			return m[1] + strings.Repeat("*", len([]rune(m[2]))) + strings.Join(m[3:], "")
		})
	}
	stars(secretLine)
	stars(secretURL)
	return line
}

// A loader reads one configuration. What is wrong in gateway.hcl is in its Log, what is wrong in
// the mappings in mapped, what no line is to blame for in failures.
type loader struct {
	*reading
	req      LoadRequest
	dir      string
	config   *Config
	globs    []string
	digest   hash.Hash
	failures diag.Diagnostics
	mapped   diag.Diagnostics
	listen   []listenAt
	// infos are all wrapper blocks that could be read, for the mappings, also those with mistakes:
	// else each would be followed by a row of binds without a wrapper.
	infos []mapping.WrapperInfo
	// at is where each wrapper's and each user's name stands.
	at map[string]hcl.Range
}

var rootSchema = diag.Schema{
	What:  "gateway.hcl",
	Attrs: []string{"data", "domains", "mappings", "min_free", "drain"},
	Blocks: []diag.Block{
		{Type: "wrapper", Labels: []string{"protocol", "name"}},
		{Type: "user", Labels: []string{"name"}},
		{Type: "group", Labels: []string{"name"}},
		{Type: "access", Labels: []string{"register"}},
		{Type: "daemon", Once: true},
		{Type: "sites", Once: true},
		{Type: "domain", Labels: []string{"name"}},
		{Type: "log", Once: true},
	},
}

var (
	logSchema    = diag.Schema{What: "log", Attrs: []string{"level", "format"}}
	daemonSchema = diag.Schema{What: "daemon", Attrs: []string{"socket", "websocket"}, Later: []string{"tls", "token", "origins"}}
	userSchema   = diag.Schema{What: "user", Attrs: []string{"password", "keys", "as"}}
)

func (l *loader) defaults() {
	c := l.config
	c.Data = relativeTo(l.dir, defaultData)
	c.Domains = []string{defaultDomain}
	c.MinFree = defaultMinFree
	c.Drain = defaultDrain
	l.globs = []string{defaultMappings}
	l.at = map[string]hcl.Range{}
}

// gateway reads gateway.hcl.
func (l *loader) gateway(body *hclsyntax.Body) {
	own := *body
	own.Blocks = nil
	for _, b := range body.Blocks {
		if b.Type == "register" || b.Type == "bind" || b.Type == "ignore" || b.Type == "test" {
			l.errorAt("GW003", b.TypeRange, b.Type+" stands in the wrong file", "It belongs into a mapping, mappings.d/*.hcl.")
			continue
		}
		own.Blocks = append(own.Blocks, b)
	}
	content := l.Decode(&own, body.MissingItemRange(), rootSchema)
	c := l.config
	if l.text(content.Attrs["data"], &c.Data) {
		c.Data = relativeTo(l.dir, c.Data)
	}
	l.texts(content.Attrs["mappings"], &l.globs)
	l.size(content.Attrs["min_free"], 1<<20, 1<<50, &c.MinFree)
	l.duration(content.Attrs["drain"], 0, time.Hour, &c.Drain)
	l.domains(content.Attrs["domains"])
	for _, b := range content.Blocks {
		done := l.Within(heading(b))
		switch b.Type {
		case "user":
			l.user(b)
		case "daemon":
			l.daemon(b)
		case "sites":
			l.sites(b)
		case "domain":
			l.hub(b)
		case "log":
			l.log(b)
		}
		done()
	}
	for _, b := range content.Blocks {
		if b.Type == "wrapper" {
			done := l.Within(heading(b))
			l.wrapper(b)
			done()
		}
	}
	l.groups(content.Blocks)
	l.access(content.Blocks)
	l.usersTwice()
	l.listenersTwice()
}

// heading names a block as it is written: wrapper "mqtt" "floor".
func heading(b *hclsyntax.Block) string {
	s := b.Type
	for _, label := range b.Labels {
		s += " " + strconv.Quote(label)
	}
	return s
}

// maxDomains bounds the engines of one process.
const maxDomains = 16

var domainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

func (l *loader) domains(attr *hclsyntax.Attribute) {
	var names []string
	if !l.texts(attr, &names) {
		return
	}
	if len(names) == 0 {
		l.errorAt("GW004", attr.Expr.Range(), "no domain", "\"domains\" names at least one.")
		return
	}
	if len(names) > maxDomains {
		l.errorAt("GW004", attr.Expr.Range(), "too many domains", "A gateway has %d at most.", maxDomains)
	}
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			l.errorAt("GW004", attr.Expr.Range(), "a domain twice", "%q stands there twice.", n)
		}
		if !domainName.MatchString(n) {
			l.errorAt("GW004", attr.Expr.Range(), "bad domain name", "%q: a domain's name is 1 to 63 letters, digits, dots, dashes and underscores, and begins with a letter or digit.", n)
		}
	}
	l.config.Domains = names
}

func (l *loader) log(b *hclsyntax.Block) {
	content := l.Decode(b.Body, b.DefRange(), logSchema)
	var word string
	if l.choice(content.Attrs["level"], []string{"debug", "info", "warn", "error"}, &word) {
		_ = l.config.Log.Level.UnmarshalText([]byte(word)) // the words are slog's
	}
	word = "text"
	l.choice(content.Attrs["format"], []string{"text", "json"}, &word)
	l.config.Log.JSON = word == "json"
}

func (l *loader) daemon(b *hclsyntax.Block) {
	content := l.Decode(b.Body, b.DefRange(), daemonSchema)
	if a := content.Attrs["socket"]; l.text(a, &l.config.Daemon.Socket) {
		switch path := l.config.Daemon.Socket; {
		case path == "":
			l.errorAt("GW010", a.Expr.Range(), "empty path", "Leave \"socket\" out for the default place.")
		default:
			l.config.Daemon.Socket = relativeTo(l.dir, path)
		}
	}
	if a := content.Attrs["websocket"]; l.text(a, &l.config.Daemon.WebSocket) && l.address(a, l.config.Daemon.WebSocket) {
		l.listen = append(l.listen, listenAt{l.config.Daemon.WebSocket, "daemon", a.Expr.Range()})
		if !onLoopback(l.config.Daemon.WebSocket) {
			l.warnAt("GW030", a.Expr.Range(), "open to the network", "/healthz, /readyz and /metrics have neither TLS nor logon. They hold no values, but names and figures.")
		}
	}
}

var userName = regexp.MustCompile(`^[^\s@/:"\x00-\x1f]{1,128}$`)

func (l *loader) user(b *hclsyntax.Block) {
	u := User{Name: b.Labels[0]}
	if !userName.MatchString(u.Name) {
		l.errorAt("GW005", b.LabelRanges[0], "bad user name", "A user's name is 1 to 128 characters without spaces, quotes, and @ / :.")
	}
	if first, ok := l.at["user "+u.Name]; ok {
		l.errorAt("GW006", b.LabelRanges[0], "second user of that name", "%q stands at %s already.", u.Name, fileLine(first))
		return
	}
	l.at["user "+u.Name] = b.LabelRanges[0]
	content := l.Decode(b.Body, b.DefRange(), userSchema)
	if a := content.Attrs["password"]; l.secret(a, &u.Password) && u.Password.Empty() {
		l.errorAt("GW020", a.NameRange, "empty password", "Nobody can log on with an empty password. Leave it out, or give one.")
	}
	l.texts(content.Attrs["keys"], &u.Keys)
	if a := content.Attrs["as"]; a != nil {
		if list, ok := l.pairs(a, `names by protocol: { mqtt = "ann-1" }`); ok {
			u.As = map[string]string{}
			for _, p := range list {
				if l.protocol(p.key) == nil && !slices.Contains(laterProtocols, p.key) {
					l.Unknown("GW007", a.Expr.Range(), "protocol", p.key, l.protocolNames())
				}
				u.As[p.key] = p.value
			}
		}
	}
	l.config.Users = append(l.config.Users, u)
}

// usersTwice finds two users who would log on to one protocol by one name.
func (l *loader) usersTwice() {
	for _, p := range l.req.Protocols {
		seen := map[string]string{}
		for i := range l.config.Users {
			u := &l.config.Users[i]
			name := u.nameIn(p.Name)
			if other, ok := seen[name]; ok {
				l.errorAt("GW006", l.at["user "+u.Name], "Two users with one name", "%q and %q both log on to %s as %q.", other, u.Name, p.Name, name)
			}
			seen[name] = u.Name
		}
	}
}

func (l *loader) protocol(name string) *wrappers.Protocol {
	for i := range l.req.Protocols {
		if l.req.Protocols[i].Name == name {
			return &l.req.Protocols[i]
		}
	}
	return nil
}

func (l *loader) protocolNames() []string {
	out := make([]string, len(l.req.Protocols))
	for i, p := range l.req.Protocols {
		out[i] = p.Name
	}
	return out
}

// mappings reads the mapping files and checks them together with the wrappers.
func (l *loader) mappings() {
	paths := l.req.Mappings
	if paths == nil {
		paths = l.mappingPaths()
	}
	var files []diag.File
	for _, path := range paths {
		src, err := l.req.Sources.ReadFile(path)
		if err != nil {
			l.failures = append(l.failures, failure("GW002", "can't read a mapping", err.Error()))
			continue
		}
		_, _ = fmt.Fprintf(l.digest, "\x00%s\x00", filepath.Base(path))
		_, _ = l.digest.Write(src)
		files = append(files, diag.File{Name: path, Bytes: src})
	}
	l.config.Mappings = paths
	l.config.Set, l.mapped = mapping.Load(mapping.Input{
		Files: files, Wrappers: l.infos, Domains: l.config.Domains, Later: laterProtocols, People: l.people(),
	})
	l.policy()
}

func (l *loader) mappingPaths() []string {
	seen := map[string]bool{}
	var paths []string
	for _, g := range l.globs {
		found, err := l.req.Sources.Glob(relativeTo(l.dir, g))
		if err != nil {
			l.failures = append(l.failures, failure("GW002", "bad pattern in \"mappings\"", g+": "+err.Error()))
			continue
		}
		if len(found) == 0 && !strings.ContainsAny(g, "*?[") {
			l.failures = append(l.failures, failure("GW002", "no such mapping", relativeTo(l.dir, g)+" is not there."))
		}
		for _, p := range found {
			if !seen[p] {
				seen[p] = true
				paths = append(paths, p)
			}
		}
	}
	sort.Strings(paths)
	return paths
}

type listenAt struct {
	address, owner string
	at             hcl.Range
}

// address checks host:port.
func (l *loader) address(a *hclsyntax.Attribute, s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		l.errorAt("GW011", a.Expr.Range(), "bad address", "%q is not host:port, as \"127.0.0.1:1883\".", s)
	}
	return err == nil
}

// listenersTwice finds two listeners that can't both have their port.
func (l *loader) listenersTwice() {
	slices.SortStableFunc(l.listen, func(a, b listenAt) int { return a.at.Start.Byte - b.at.Start.Byte })
	for i, a := range l.listen {
		for _, b := range l.listen[:i] {
			if sameListener(a.address, b.address) {
				l.errorAt("GW012", a.at, "address taken twice", "%s listens on %s already, at %s.", b.owner, b.address, fileLine(b.at))
				break
			}
		}
	}
}

func sameListener(a, b string) bool {
	ha, pa, _ := net.SplitHostPort(a)
	hb, pb, _ := net.SplitHostPort(b)
	return pa == pb && pa != "0" && (ha == hb || anyHost(ha) || anyHost(hb))
}

func anyHost(h string) bool {
	ip := net.ParseIP(h)
	return h == "" || ip != nil && ip.IsUnspecified()
}

// onLoopback tells whether only this machine can reach the address; one that is no address, nobody can.
func onLoopback(address string) bool {
	h, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(h)
	return err != nil || h == "localhost" || ip != nil && ip.IsLoopback()
}

// fileLine is file:line, as mistakes and history name it.
func fileLine(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }
