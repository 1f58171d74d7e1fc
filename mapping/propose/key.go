package propose

import (
	"net/url"
	"slices"
	"strings"
)

// findKey looks for the members that tell the register where the address doesn't.
func (b *bind) findKey(p *proposer) {
	if p.protocols[b.route.protocol].Syntax.Keys {
		b.rowKey()
		return
	}
	if len(b.route.params) > 0 || b.writes == 0 || p.opaque(b, typed) && b.form != csvForm {
		return
	}
	if b.form == csvForm {
		if p.can["each"] {
			if c := b.columnKey(); c != "" {
				b.key, b.each = []string{c}, true
			}
		}
		return
	}
	if !b.isObject() || slices.ContainsFunc(b.route.parts, part.isCapture) {
		return
	}
	best, at := "", len(idOrder)
	for name, m := range b.members {
		i := slices.Index(idOrder, strings.ToLower(name))
		if i < 0 || i >= at && !(i == at && name < best) || m.count < b.documents() || m.numbers+m.texts < m.count {
			continue
		}
		if len(m.values) > 1 || i < idCertain {
			best, at = name, i
		}
	}
	if best == "" {
		return
	}
	b.key = []string{best}
	if m := b.members["model"]; best != "model" && m != nil && m.count == b.documents() && m.texts == m.count {
		b.key = []string{"model", best}
	}
}

// idOrder are the names of idNames, the best first; those before idCertain name one of many even if only one was seen.
var idOrder = []string{
	"id", "_id", "uuid", "guid", "device_id", "deviceid", "sensor_id", "sensorid", "deveui", "dev_eui", "eui", "serial", "serial_number", "serialno", "mac", "imei",
	"station_id", "stationid", "node_id", "nodeid", "device", "sensor", "station", "node", "key", "name",
}

const idCertain = 18

func (b *bind) documents() int {
	n := 0
	for _, s := range b.route.samples {
		if s.verb.Writes() && s.payload.form == b.form && s.payload.object {
			n++
		}
	}
	return n
}

// columnKey is the first column whose values differ within each document.
func (b *bind) columnKey() string {
	for _, s := range b.route.samples {
		if s.payload.form != csvForm {
			continue
		}
	columns:
		for _, c := range s.payload.columns {
			for _, o := range b.route.samples {
				values := map[any]bool{}
				for _, row := range o.payload.rows {
					v, ok := row[c].(string)
					if !ok || v == "" || values[v] || number.MatchString(v) && strings.ContainsAny(v, ".,") {
						continue columns
					}
					values[v] = true
				}
			}
			return c
		}
		return ""
	}
	return ""
}

// queryKey is the parameter that tells the register.
func (b *bind) queryKey() string {
	for _, name := range idOrder {
		for _, q := range b.route.params {
			if strings.ToLower(q.name) == name {
				return q.value
			}
		}
	}
	if !slices.ContainsFunc(b.route.parts, part.isCapture) {
		for _, q := range b.route.params {
			if strings.HasSuffix(strings.ToLower(q.name), "id") {
				return q.value
			}
		}
	}
	return ""
}

// rowKey is the key that a table's rows have in their addresses.
func (b *bind) rowKey() {
	for _, s := range b.route.samples {
		if len(b.key) == 0 || len(s.query) < len(b.key) {
			b.key = b.key[:0]
			for _, q := range s.query {
				b.key = append(b.key, unescaped(q.name))
			}
		}
	}
	b.rows = true
}

// unescaped is a name or a value of a query as it was meant.
func unescaped(s string) string {
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	return s
}
