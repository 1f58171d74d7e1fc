package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

var commonAttributes = []string{
	"listen", "upstream", "base", "user", "password", "unmapped", "anonymous", "drain", "capture_wait", "feed",
}

var laterAttributes = []string{"attribute", "proxy_protocol"}

// wrapperSchema is the common part of a wrapper block and the protocol's own settings.
func wrapperSchema(p *wrappers.Protocol) diag.Schema {
	s := diag.Schema{
		What:   fmt.Sprintf("wrapper %q", p.Name),
		Attrs:  slices.Clone(commonAttributes),
		Blocks: []diag.Block{{Type: "tls", Once: true}, {Type: "upstream_tls", Once: true}, {Type: "limits", Once: true}},
		Later:  slices.Clone(laterAttributes),
	}
	for _, set := range p.Settings {
		if !slices.Contains(s.Attrs, set.Name) { // it may mean its own by a common one
			s.Attrs = append(s.Attrs, set.Name)
		}
		s.Later = slices.DeleteFunc(s.Later, func(n string) bool { return n == set.Name })
	}
	return s
}

var (
	wrapperName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	serverKey   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
)

// wrapper reads one wrapper block.
func (l *loader) wrapper(b *hclsyntax.Block) {
	protocol, name := b.Labels[0], b.Labels[1]
	if !wrapperName.MatchString(name) {
		l.errorAt("GW005", b.LabelRanges[1], "bad wrapper name", "A wrapper's name is 1 to 63 small letters, digits, dashes and underscores, and begins with a letter or digit.")
	}
	if first, ok := l.at["wrapper "+name]; ok {
		l.errorAt("GW006", b.LabelRanges[1], "second wrapper of that name", "%q stands at %s already. Names are unique, whatever the protocol.", name, fileLine(first))
	} else {
		l.at["wrapper "+name] = b.LabelRanges[1]
	}
	p := l.protocol(protocol)
	if p == nil {
		if slices.Contains(laterProtocols, protocol) {
			l.Later(b.LabelRanges[0], fmt.Sprintf("the protocol %q", protocol))
		} else {
			l.Unknown("GW007", b.LabelRanges[0], "protocol", protocol, l.protocolNames())
		}
		return
	}
	w := &wrapperReading{
		loader: l, content: l.Decode(b.Body, b.DefRange(), wrapperSchema(p)), block: b,
		out: WrapperBlock{Protocol: *p, Name: name, source: fileLine(b.DefRange()), Limits: defaultLimits, Drain: l.config.Drain, CaptureWait: defaultCaptureWait},
	}
	if p.Frame > 0 {
		w.out.Limits.Frame = p.Frame
	}
	w.read()
	w.out.digest = w.out.sum()
	l.config.Wrappers = append(l.config.Wrappers, w.out)
	info := mapping.WrapperInfo{
		Protocol: *p, Name: name, Base: w.out.Base,
		Upstream: w.content.Attrs["upstream"] != nil, Listens: w.content.Attrs["listen"] != nil,
	}
	for _, u := range w.out.Upstreams {
		info.Reaches = append(info.Reaches, u.Addr+u.Path)
		if u.Server != "" {
			info.Servers = append(info.Servers, u.Server)
		}
	}
	l.infos = append(l.infos, info)
}

type wrapperReading struct {
	*loader
	block   *hclsyntax.Block
	content diag.Content
	out     WrapperBlock
}

func (w *wrapperReading) read() {
	attrs := w.content.Attrs
	if a := attrs["listen"]; w.texts(a, &w.out.Listen) {
		if len(w.out.Listen) == 0 {
			w.errorAt("GW011", a.Expr.Range(), "no address", "\"listen\" is empty: leave it out for an attached wrapper.")
		}
		for _, s := range w.out.Listen {
			if w.address(a, s) {
				w.listen = append(w.listen, listenAt{s, fmt.Sprintf("wrapper %q", w.out.Name), a.Expr.Range()})
			}
		}
	}
	w.upstreams(attrs["upstream"])
	if attrs["listen"] == nil && attrs["upstream"] == nil {
		w.errorAt("GW013", w.block.DefRange(), "neither listen nor upstream", "A wrapper listens (virtual), or has an upstream (attached), or both (relay).")
	}
	if !slices.ContainsFunc(w.out.Protocol.Settings, func(s wrappers.Setting) bool { return s.Name == "base" }) {
		w.text(attrs["base"], &w.out.Base)
	}
	w.duration(attrs["drain"], 0, time.Hour, &w.out.Drain)
	w.duration(attrs["capture_wait"], 0, 5*time.Minute, &w.out.CaptureWait)
	w.credentials(attrs["user"], attrs["password"])
	w.tls()
	w.limits()
	w.settings()
	w.unmapped(attrs["unmapped"])
	w.openness(attrs["anonymous"])
	w.feed(attrs["feed"])
}

// feed names the gateway that attends to a server which several could: the others stand by.
func (w *wrapperReading) feed(a *hclsyntax.Attribute) {
	if !w.text(a, &w.out.Feed) {
		return
	}
	switch {
	case w.content.Attrs["listen"] != nil:
		w.errorAt("GW018", a.NameRange, "feed in a wrapper that listens", "It names the gateway that alone is attached to a server. What comes through a listener is heard where it comes.")
	case w.config.Sites.Name == "":
		w.errorAt("GW018", a.Expr.Range(), "this gateway has no name", "\"feed\" names one of several gateways: say which one this is, with `sites { name = … }`.")
	}
}

// standsBy tells whether another gateway attends to the wrapper's server.
func (w *WrapperBlock) standsBy(site string) bool { return w.Feed != "" && w.Feed != site }

func (w *wrapperReading) upstreams(a *hclsyntax.Attribute) {
	if a == nil {
		return
	}
	const form = `an address, "scheme://host:port", or several by name: { a = "scheme://host" }`
	if v, diags := a.Expr.Value(w.ctx); !diags.HasErrors() && !v.IsNull() && v.Type() == cty.String {
		w.upstream(a, "", v.AsString())
		return
	}
	list, ok := w.pairs(a, form)
	if !ok {
		return
	}
	if len(list) == 0 {
		w.wrongType(a, form)
	}
	if len(list) > 1 && w.content.Attrs["listen"] != nil {
		w.errorAt("GW014", a.Expr.Range(), "several servers behind one listener", "A relay has one upstream: a peer's bytes go to one server. Give each server a wrapper of its own, or leave out \"listen\".")
	}
	for _, p := range list {
		if !serverKey.MatchString(p.key) {
			w.errorAt("GW005", a.Expr.Range(), "bad server name", "%q: a server's name is 1 to 63 letters, digits, dots, dashes and underscores.", p.key)
		}
		w.upstream(a, p.key, p.value)
	}
}

func (w *wrapperReading) schemes() []string {
	var out []string
	for _, s := range w.out.Protocol.Schemes {
		out = append(out, s.Name)
	}
	return out
}

func (w *wrapperReading) upstream(a *hclsyntax.Attribute, server, text string) {
	fail := func(code diag.Code, summary, format string, args ...any) {
		w.errorAt(code, a.Expr.Range(), summary, format, args...)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		fail("GW015", "bad upstream", "An upstream is written scheme://host:port, with one of the schemes %s.", quoted(w.schemes()))
		return
	}
	i := slices.IndexFunc(w.out.Protocol.Schemes, func(s wrappers.Scheme) bool { return s.Name == u.Scheme })
	if i < 0 {
		w.unknown(a.Expr.Range(), "the upstream's scheme", u.Scheme, w.schemes())
		return
	}
	scheme := w.out.Protocol.Schemes[i]
	up := UpstreamBlock{Server: server, Scheme: u.Scheme, Path: u.EscapedPath()}
	if u.RawQuery != "" || u.Fragment != "" {
		fail("GW015", "bad upstream", "An upstream has no ? and no #.")
	}
	switch port := u.Port(); {
	case u.Hostname() != "":
		if port == "" {
			port = strconv.Itoa(scheme.Port)
		}
		up.Addr = net.JoinHostPort(u.Hostname(), port)
	case u.Path != "":
		up.Addr, up.Path = u.Path, ""
	default:
		fail("GW015", "bad upstream", "It names no host.")
	}
	if u.User != nil {
		up.User = u.User.Username()
		if pw, ok := u.User.Password(); ok {
			up.Password = NewSecret(pw)
			if isLiteral(a.Expr) {
				w.warnAt("GW021", a.NameRange, "secret written out", "The password stands in the upstream's address. Use password = file(\"path\") or env(\"NAME\").")
			}
		}
	}
	if scheme.TLS {
		up.TLS = &DialTLS{}
	}
	w.out.Upstreams = append(w.out.Upstreams, up)
}

func (w *wrapperReading) credentials(user, password *hclsyntax.Attribute) {
	var name string
	var secret Secret
	hasName, hasSecret := w.text(user, &name), w.secret(password, &secret)
	for _, a := range []*hclsyntax.Attribute{user, password} {
		if a != nil && w.content.Attrs["upstream"] == nil {
			w.errorAt("GW022", a.NameRange, "nobody to log on to", "%q is for the upstream's server, and this wrapper has none. Who may log on to the gateway stands in user blocks.", a.Name)
		}
	}
	for i := range w.out.Upstreams {
		up := &w.out.Upstreams[i]
		if hasName {
			if up.User != "" {
				w.errorAt("GW023", user.NameRange, "two user names", "The upstream's address names a user already.")
			}
			up.User = name
		}
		if hasSecret {
			if !up.Password.Empty() {
				w.errorAt("GW023", password.NameRange, "two passwords", "The upstream's address holds a password already.")
			}
			up.Password = secret
		}
	}
}

var (
	limitsSchema = diag.Schema{
		What: "limits", Attrs: []string{"frame", "sessions", "per_host", "queue", "handshake", "idle"},
	}
)

func (w *wrapperReading) limits() {
	for _, b := range w.content.Blocks {
		if b.Type != "limits" {
			continue
		}
		c := w.Decode(b.Body, b.DefRange(), limitsSchema)
		lim := &w.out.Limits
		var n int64
		var size uint64
		if w.size(c.Attrs["frame"], 1<<10, 256<<20, &size) {
			lim.Frame = int(size)
		}
		if w.size(c.Attrs["queue"], 1<<12, 1<<30, &size) {
			lim.Queue = int(size)
		}
		if w.whole(c.Attrs["sessions"], 1, 1<<20, &n) {
			lim.Sessions = int(n)
		}
		if w.whole(c.Attrs["per_host"], 1, 1<<20, &n) {
			lim.PerHost = int(n)
		}
		w.duration(c.Attrs["handshake"], 100*time.Millisecond, time.Hour, &lim.Handshake)
		w.duration(c.Attrs["idle"], 0, 7*24*time.Hour, &lim.Idle)
	}
}

// settings reads the attributes the protocol adds.
func (w *wrapperReading) settings() {
	w.out.Options = wrappers.Options{}
	for _, s := range w.out.Protocol.Settings {
		a := w.content.Attrs[s.Name]
		if s.Default != nil {
			w.out.Options[s.Name] = s.Default
		}
		if a == nil {
			continue
		}
		switch s.Kind {
		case wrappers.StringSetting:
			var v string
			if len(s.Enum) > 0 && w.choice(a, s.Enum, &v) || len(s.Enum) == 0 && w.text(a, &v) {
				w.out.Options[s.Name] = v
			}
		case wrappers.BoolSetting:
			var v bool
			if w.boolean(a, &v) {
				w.out.Options[s.Name] = v
			}
		case wrappers.IntSetting:
			var v int64
			high := s.Max
			if high == 0 {
				high = math.MaxInt64
			}
			if w.whole(a, s.Min, high, &v) {
				w.out.Options[s.Name] = v
			}
		case wrappers.StringsSetting:
			var v []string
			if !w.texts(a, &v) {
				continue
			}
			for _, x := range v {
				if len(s.Enum) > 0 && !slices.Contains(s.Enum, x) {
					w.unknown(a.Expr.Range(), s.Name, x, s.Enum)
				}
			}
			w.out.Options[s.Name] = v
		}
	}
}

func (w *wrapperReading) unmapped(a *hclsyntax.Attribute) {
	var word string
	if !w.choice(a, []string{"pass", "refuse"}, &word) {
		return
	}
	if w.content.Attrs["listen"] == nil || w.content.Attrs["upstream"] == nil {
		w.errorAt("GW016", a.NameRange, "only in a relay", "\"unmapped\" says what a relay does with operations that no bind maps. A wrapper without both listen and upstream has no choice.")
	}
	w.out.Refuse = word == "refuse"
}

// openness checks who can reach a listener, and what they may do unknown.
func (w *wrapperReading) openness(a *hclsyntax.Attribute) {
	var word string
	has := w.choice(a, []string{"read", "write"}, &word)
	virtual := w.content.Attrs["listen"] != nil && w.content.Attrs["upstream"] == nil
	if a != nil && !virtual {
		w.errorAt("GW016", a.NameRange, "only in a virtual wrapper", "\"anonymous\" is for what the gateway itself answers. In a relay the server decides who may do what.")
	}
	open := slices.ContainsFunc(w.out.Listen, func(s string) bool { return !onLoopback(s) })
	users := len(w.config.Users) > 0
	switch {
	case has && word == "write":
		w.out.Anonymous = wrappers.WriteAccess
	case has:
		w.out.Anonymous = wrappers.ReadAccess
	case virtual && !users && !open:
		w.out.Anonymous = wrappers.WriteAccess
	}
	listen := w.content.Attrs["listen"]
	if listen == nil || !open {
		return
	}
	if virtual && !users && a == nil {
		w.errorAt("GW031", listen.Expr.Range(), "open to everybody", "This listener is not on loopback only, and there is no user. Add a user block, or say anonymous = \"read\" or \"write\".")
	}
	if w.out.TLS == nil {
		w.warnAt("GW032", listen.Expr.Range(), "open to the network without TLS", "What passes here, passwords too, can be read on the way. Add a tls { … } block, or listen on 127.0.0.1.")
	}
}

// sum is a digest over everything that a running wrapper was started with.
func (b *WrapperBlock) sum() string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	parts := []any{
		b.Protocol.Name, b.Name, b.Listen, b.Base, b.Refuse, b.Anonymous, b.Limits, b.Options, b.Drain, b.CaptureWait, b.Feed,
	}
	if b.TLS != nil {
		parts = append(parts, "listen", b.TLS.CertFile, b.TLS.KeyFile, b.TLS.ClientCA)
	}
	for _, u := range b.Upstreams {
		parts = append(parts, u.Server, u.Scheme, u.Addr, u.Path, u.User, u.Password.Reveal())
		if u.TLS != nil {
			parts = append(parts, "dial", u.TLS.CA, u.TLS.Cert, u.TLS.ServerName)
		}
	}
	for _, p := range parts {
		if err := enc.Encode(p); err != nil { // plain data
			panic(err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
