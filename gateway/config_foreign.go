package gateway

import "strings"

// foreignHint says what is written here for an attribute or a block of brokers, proxies and other gateways.
func foreignHint(what, name string) string {
	if strings.HasPrefix(what, "attribute") || strings.HasPrefix(what, "block") {
		return foreignWords[name]
	}
	return ""
}

var foreignWords = map[string]string{
	"port":         "It stands in `listen`, \"127.0.0.1:1883\", or in `upstream`, \"tcp://10.0.0.5:1883\".",
	"host":         "It stands in `listen`, \"127.0.0.1:1883\", or in `upstream`, \"tcp://10.0.0.5:1883\".",
	"bind":         "Where clients connect is `listen`, \"127.0.0.1:1883\".",
	"bind_address": "Where clients connect is `listen`, \"127.0.0.1:1883\".",
	"address":      "Where clients connect is `listen`, where the server is `upstream`.",
	"url":          "Where the server is, is `upstream`.",
	"broker":       "Where the server is, is `upstream`.",
	"server":       "Where the server is, is `upstream`.",
	"target":       "Where the server is, is `upstream`.",
	"backend":      "Where the server is, is `upstream`.",
	"proxy_pass":   "Where the server is, is `upstream`.",
	"username":     "The gateway's own logon at the upstream is `user` and `password`; who may log on to the gateway stands in user blocks.",
	"secret":       "It is `password`, by file(\"path\") or env(\"NAME\").",
	"ssl":          "It is a block `tls { cert = … }`.",
	"certificate":  "It is `cert` in a block `tls { … }`.",
	"insecure":     "A server's certificate is always checked; `ca` in the tls block names whom to believe.",
	"skip_verify":  "A server's certificate is always checked; `ca` in the tls block names whom to believe.",
	"verify":       "A server's certificate is always checked; `ca` in the tls block names whom to believe.",
	"topics":       "Which addresses mean what stands in binds, in mappings.d.",
	"timeout":      "How long stopping may take is `drain`, how long a peer may be silent `idle` in a block `limits { … }`.",
	"include":      "Mapping files are named by `mappings`.",
	"variable":     "There are no variables; env(\"NAME\", \"default\") and file(\"path\") stand where a value does.",
	"locals":       "There are no variables; env(\"NAME\", \"default\") and file(\"path\") stand where a value does.",
	"provider":     "A protocol is spoken by a block `wrapper \"mqtt\" \"name\" { … }`.",
	"listener":     "A protocol is spoken by a block `wrapper \"mqtt\" \"name\" { … }`, with `listen`.",
	"acl":          "Who may do what the gateway itself answers is said by user blocks and `anonymous`.",
}
