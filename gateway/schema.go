package gateway

import (
	"slices"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// A Schema is all of the language for tools: of gateway.hcl and of mappings, made of the tables that they are read by.
type Schema struct {
	Version   int               `json:"version"` // of this form: 1
	Gateway   mapping.BlockForm `json:"gateway"` // gateway.hcl, as the body of a block without a name
	Mapping   mapping.Language  `json:"mapping"`
	Protocols []ProtocolForm    `json:"protocols"`
	Coming    []string          `json:"coming"` // protocols of a later version: binds are read and not served
}

// A ProtocolForm is what a protocol adds to the language.
type ProtocolForm struct {
	Name      string                  `json:"name"`
	Separator string                  `json:"separator"` // between the segments of an address
	Forbidden string                  `json:"forbidden"` // characters that are escaped in a capture
	Absolute  bool                    `json:"absolute"`  // an address begins with the separator
	Query     bool                    `json:"query"`
	Keys      bool                    `json:"keys"`    // payloads are rows, and what their key reads is the query of addresses
	Entries   bool                    `json:"entries"` // payloads are objects of members with one value or several
	Upward    bool                    `json:"upward"`  // an address begins with what is deepest
	Fold      bool                    `json:"fold"`    // addresses that differ in case are one
	Feed      bool                    `json:"feed"`
	Schemes   []SchemeForm            `json:"schemes"`
	Wrapper   []mapping.AttributeForm `json:"wrapper"` // attributes of its wrapper blocks beyond the common ones
	Bind      []mapping.AttributeForm `json:"bind"`    // of its binds
}

// A SchemeForm is a form of upstream.
type SchemeForm struct {
	Name string `json:"name"`
	Port int    `json:"port,omitempty"`
	TLS  bool   `json:"tls,omitempty"`
}

// attributeForms says what each attribute of gateway.hcl is; which there are stands in the schemas.
var attributeForms = map[string]map[string]mapping.AttributeForm{
	"": {
		"data":     {Type: "path", Default: defaultData, Doc: "one directory for all that is durable"},
		"domains":  {Type: "list of strings", Default: defaultDomain, Doc: "the domains; the first is the default"},
		"mappings": {Type: "list of paths", Default: defaultMappings, Doc: "mapping files, with * and ?"},
		"min_free": {Type: "size", Default: FormatSize(defaultMinFree), Doc: "room on the disk below which writes are refused"},
		"drain":    {Type: "duration", Default: defaultDrain.String(), Doc: "how long stopping may take"},
	},
	"wrapper": {
		"listen":       {Type: "list of host:port", Doc: "where peers connect"},
		"upstream":     {Type: "url, or map of urls", Doc: "the real server, or several by name"},
		"base":         {Type: "string", Doc: "binds are relative to it"},
		"user":         {Type: "string", Doc: "the gateway's own logon at the server"},
		"password":     {Type: "secret", Doc: "beside user: file(path), env(name) or a text"},
		"unmapped":     {Type: "string", Default: "pass", Values: []string{"pass", "refuse"}, Doc: "what a relay does with what no bind maps"},
		"anonymous":    {Type: "string", Values: []string{"read", "write"}, Doc: "what a peer may do at a virtual wrapper without logging on"},
		"feed":         {Type: "string", Doc: "of several gateways that could be attached to the server, the one that is, by its name in the sites block; the others stand by"},
		"drain":        {Type: "duration", Doc: "how long this wrapper may take to stop; default the gateway's"},
		"capture_wait": {Type: "duration", Default: defaultCaptureWait.String(), Doc: "how long a relay's peer waits for the feed"},
	},
	"tls": {
		"cert":      {Type: "path", Doc: "the listener's certificate, or the gateway's own at the server"},
		"key":       {Type: "path", Doc: "its key"},
		"client_ca": {Type: "path", Doc: "of clients, which then need a certificate"},
	},
	"upstream_tls": {
		"ca":          {Type: "path", Doc: "whom to believe that it is the server; default the system's"},
		"cert":        {Type: "path", Doc: "the gateway's own certificate"},
		"key":         {Type: "path", Doc: "its key"},
		"server_name": {Type: "string", Doc: "the name in the server's certificate"},
	},
	"limits": {
		"frame":     {Type: "size", Default: FormatSize(uint64(defaultLimits.Frame)), Doc: "of one message"},
		"sessions":  {Type: "int", Default: defaultLimits.Sessions, Doc: "at once"},
		"per_host":  {Type: "int", Default: defaultLimits.PerHost, Doc: "unauthenticated sessions from one address"},
		"queue":     {Type: "size", Default: FormatSize(uint64(defaultLimits.Queue)), Doc: "bytes for a peer that does not read"},
		"handshake": {Type: "duration", Default: defaultLimits.Handshake.String(), Doc: "to log on"},
		"idle":      {Type: "duration", Doc: "without a byte; default the protocol's own rule"},
	},
	"user": {
		"password": {Type: "secret", Doc: "file(path), env(name) or a text"},
		"keys":     {Type: "list of strings", Doc: "public keys"},
		"as":       {Type: "map of strings", Doc: "the user's name in each protocol"},
	},
	"group": {
		"members": {Type: "list of who", Doc: "users and wrappers"},
	},
	"access": {
		"read":  {Type: "list of who", Doc: "who may read the registers of the template"},
		"write": {Type: "list of who", Doc: "who may write them, and read"},
	},
	"daemon": {
		"socket":    {Type: "path", Doc: "where applications and spookgw's verbs connect"},
		"websocket": {Type: "host:port", Doc: "/healthz, /readyz and /metrics"},
	},
	"sites": {
		"name":    {Type: "string", Doc: "what this gateway is called among those of its domains, where a bind's site names it"},
		"listen":  {Type: "host:port, or unix:/path", Doc: "where other gateways call; without it this one calls them"},
		"address": {Type: "host:port, or unix:/path", Doc: "what invitations name; default listen, where that is one address"},
	},
	"domain": {
		"nats":        {Type: "list of URLs", Doc: "the servers of the NATS that the domain rides on: nats://, tls://, ws:// or wss://"},
		"embedded":    {Type: "bool", Default: "false", Doc: "this process runs the hub itself"},
		"listen":      {Type: "host:port", Doc: "where an embedded hub is reached by other gateways; without it by this one alone"},
		"leaf":        {Type: "host:port", Doc: "where an embedded hub takes in leaf nodes"},
		"credentials": {Type: "path", Doc: "a file with a user's JWT and seed"},
		"nkey":        {Type: "path", Doc: "a file with a user's seed"},
		"token":       {Type: "secret", Doc: "shown to the hub; of an embedded one, asked of others"},
		"user":        {Type: "string", Doc: "shown to the hub; of an embedded one, asked of others"},
		"password":    {Type: "secret", Doc: "the user's"},
		"jetstream":   {Type: "string", Doc: "the JetStream domain of the hub, where a leaf node with a JetStream of its own lies between"},
		"max_age":     {Type: "duration", Default: "7d", Doc: "how long the hub keeps what was written, where this gateway makes the stream"},
		"max_bytes":   {Type: "size", Default: "1GiB", Doc: "how much of it"},
		"replicas":    {Type: "number", Default: "1", Doc: "on how many servers of a cluster, 1, 3 or 5"},
		"forget":      {Type: "duration", Default: "30d", Doc: "after what absence a member is waited for no more"},
	},
	"log": {
		"level":  {Type: "string", Default: "info", Values: []string{"debug", "info", "warn", "error"}, Doc: "what is logged"},
		"format": {Type: "string", Default: "text", Values: []string{"text", "json"}, Doc: "how"},
	},
}

// Describe gives the language as it is with these protocols.
func Describe(protocols []wrappers.Protocol) Schema {
	s := Schema{Version: 1, Mapping: mapping.Describe(protocols), Coming: laterProtocols, Protocols: []ProtocolForm{}}
	s.Gateway = mapping.Form(diag.Block{}, rootSchema, attributeForms[""])
	for _, b := range rootSchema.Blocks {
		schemas := map[string]diag.Schema{"wrapper": wrapperSchema(&wrappers.Protocol{}), "user": userSchema, "group": groupSchema,
			"access": accessSchema, "daemon": daemonSchema, "sites": sitesSchema, "domain": hubSchema, "log": logSchema}
		f := mapping.Form(b, schemas[b.Type], attributeForms[b.Type])
		if b.Type == "wrapper" {
			inner := map[string]diag.Schema{"tls": listenTLSSchema, "upstream_tls": dialTLSSchema, "limits": limitsSchema}
			for _, c := range schemas["wrapper"].Blocks {
				f.Blocks = append(f.Blocks, mapping.Form(c, inner[c.Type], attributeForms[c.Type]))
			}
		}
		if b.Type == "domain" {
			f.Blocks = append(f.Blocks, mapping.Form(diag.Block{Type: "tls", Once: true}, hubTLSSchema, attributeForms["upstream_tls"]))
		}
		s.Gateway.Blocks = append(s.Gateway.Blocks, f)
	}
	for _, p := range protocols {
		f := ProtocolForm{
			Name: p.Name, Separator: p.Syntax.Separator, Forbidden: p.Syntax.Forbidden, Absolute: p.Syntax.Absolute, Query: p.Syntax.Query, Keys: p.Syntax.Keys, Entries: p.Syntax.Entries, Upward: p.Syntax.Upward,
			Fold: p.Syntax.Fold, Feed: p.Feed, Schemes: []SchemeForm{}, Wrapper: settingForms(p.Settings), Bind: settingForms(p.Bind),
		}
		for _, c := range p.Schemes {
			f.Schemes = append(f.Schemes, SchemeForm(c))
		}
		s.Protocols = append(s.Protocols, f)
	}
	slices.SortFunc(s.Protocols, func(a, b ProtocolForm) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return s
}

func settingForms(settings []wrappers.Setting) []mapping.AttributeForm {
	out := make([]mapping.AttributeForm, len(settings))
	for i, s := range settings {
		out[i] = mapping.SettingForm(s)
	}
	return out
}
