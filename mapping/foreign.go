package mapping

import "strings"

// People come from Terraform, Benthos, Node-RED and jq, and write what is right there. What is called otherwise here is
// said instead of guessed by its letters.

// foreignHint says what stands here for a type, function, codec, attribute or block of another tool; "" if nothing is
// known of it.
func foreignHint(what, name string) string {
	switch {
	case what == "type":
		return foreignTypes[name]
	case what == "function":
		return foreignFunctions[name]
	case what == "codec":
		return foreignCodecs[name]
	case strings.HasPrefix(what, "attribute") || strings.HasPrefix(what, "block"):
		return foreignWords[name]
	}
	return ""
}

var foreignNames = map[string]string{
	"msg":       "The message's body is `payload`, its address is taken apart by the captures.",
	"this":      "On the way in it is `payload`, on the way out `self`.",
	"root":      "What comes out is written as `map`, `in` or `out`, a field or member each.",
	"json":      "The payload is decoded already: `payload.name`.",
	"JSON":      "The payload is decoded already: `payload.name`.",
	"content":   "The payload as it came is `raw`, decoded it is `payload`.",
	"topic":     "Write a capture into the address: what it takes is known by its name.",
	"path":      "Write a capture into the address: what it takes is known by its name.",
	"var":       "There are no variables; gateway.hcl has env() and file(), and a bind can be relative to its wrapper's `base`.",
	"local":     "There are no locals; write the value where it is used.",
	"each":      "There is no for_each; a capture in the address, with `match`, does its work.",
	"data":      "Another register is reg(\"name\"), in `in`.",
	"value":     "The payload is `payload`, a member of it `payload.value`.",
	"field":     "A field of the register is `self.name`, in `out`.",
	"headers":   "Headers and properties are `meta[\"name\"]`, in `in` and `key`.",
	"header":    "Headers and properties are `meta[\"name\"]`, in `in` and `key`.",
	"user":      "Who writes is `who`, in `in` and `key`.",
	"time":      "The time of a write is `now`.",
	"date":      "The time of a write is `now`.",
	"undefined": "What a message does not have is absent: `can(payload.x)` asks, `try(payload.x, 0)` replaces it.",
	"None":      "Nothing is `null`, which clears a field.",
	"nil":       "Nothing is `null`, which clears a field.",
	"True":      "Write `true`.",
	"False":     "Write `false`.",
}

var foreignTypes = map[string]string{
	"float": "Every number is a `number`.", "int": "Every number is a `number`.", "integer": "Every number is a `number`.",
	"double": "Every number is a `number`.", "decimal": "Every number is a `number`.", "boolean": "Write `bool`.",
	"str": "Write `string`.", "text": "Write `string`.", "datetime": "Write `time`.", "timestamp": "Write `time`.",
	"date":  "Write `time`; it is a moment, in RFC 3339.",
	"array": "Write `list(T)`.", "tuple": "Write `list(T)`; items of several types are `list(any)`.",
	"set": "A set is the rule `union(T)`.", "map": "Write `object({ name = T })`, or `any` where the names are not known.",
	"dict": "Write `object({ name = T })`, or `any` where the names are not known.", "json": "Write `any`.",
	"binary": "Write `bytes`.", "blob": "Write `bytes`.", "optional": "Every field may be missing; write its type alone.",
}

var foreignFunctions = map[string]string{
	"content": "The payload as it came is `raw`, decoded it is `payload`.", "json": "The payload is decoded already: `payload.name`.",
	"deleted":    "`null` clears a field; what stands neither in `map` nor in `in` is not touched.",
	"parseFloat": "Write `number(…)`.", "parseInt": "Write `number(…)`, and `floor(…)` around it.", "Number": "Write `number(…)`.",
	"float": "Write `number(…)`.", "str": "Write `tostring(…)`.", "String": "Write `tostring(…)`.", "string": "Write `tostring(…)`.",
	"bool": "Write `tobool(…)`.", "now": "`now` has no parentheses.", "timestamp": "Write `now`, without parentheses.",
	"uppercase": "Write `upper(…)`.", "lowercase": "Write `lower(…)`.", "len": "Write `length(…)`, of a text `strlen(…)`.",
	"size": "Write `length(…)`, of a text `strlen(…)`.", "substring": "Write `substr(…)`.", "round": "Write `floor(x + 0.5)`.",
	"if": "A condition is written `a ? b : c`.", "env": "env() is known in gateway.hcl only.", "file": "file() is known in gateway.hcl only.",
	"map_each": "Write `[for item in payload.list : …]`.", "catch": "Write `try(…, default)`.", "or": "Write `try(…, default)`.",
}

var foreignCodecs = func() map[string]string {
	out := map[string]string{"string": "Write `text`.", "raw": "Write `bytes`.", "binary": "Write `bytes`."}
	for _, n := range []string{"yaml", "toml", "ini", "protobuf", "avro", "msgpack", "messagepack", "bson", "sparkplug"} {
		out[n] = "There is none; `codec = bytes` carries the payload unread."
	}
	return out
}()

var foreignWords = map[string]string{
	"for_each":   "There are no loops; a capture in the address, with `match`, does its work.",
	"count":      "There are no loops; a capture in the address, with `match`, does its work.",
	"dynamic":    "There are no loops; a capture in the address, with `match`, does its work.",
	"depends_on": "Binds have no order; take it out.",
	"locals":     "There are no variables; write the value where it is used. What differs per site stands in gateway.hcl: env(), file(), `base`.",
	"variable":   "There are no variables; write the value where it is used. What differs per site stands in gateway.hcl: env(), file(), `base`.",
	"resource":   "Mapping files hold register, bind and ignore blocks.",
	"module":     "There are no modules; files in mappings.d are read together.",
	"mapping":    "What flows both ways is `map`, one way `in` or `out`.",
	"topic":      "The topic is the bind's second label: `bind \"mqtt\" \"sensors/{x}\"`.",
	"path":       "The path is the bind's second label: `bind \"http\" \"/v1/{x}\"`.",
	"url":        "The path is the bind's second label; the server stands in gateway.hcl.",
	"if":         "A condition is `when`.",
	"filter":     "A condition is `when`.",
	"format":     "How the payload is written is `codec`.",
	"default":    "There are no defaults of fields; `try(payload.x, 0)` in `in` replaces what is missing.",
	"required":   "Every field may be missing; take it out.",
}
