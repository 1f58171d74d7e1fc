package virtual

import (

	// of md5(), which is no protection of anything
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// systemFunctions tell of the session, the server and its tables.
var systemFunctions = []builtin{
	{"pg_version", 0, false, func(*run, []pgsql.Value) (pgsql.Value, error) { return text(versionText) }},
	{"pg_database", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return text(r.session.database) }},
	{"pg_user", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return text(r.session.user) }},
	{"pg_schema", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) {
		for _, s := range r.session.path() {
			if r.session.schemaExists(s) {
				return text(s)
			}
		}
		return pgsql.Value{}, nil
	}},
	{"pg_schemas", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		var items []pgsql.Value
		if a[0].Int != 0 {
			items = append(items, pgsql.StrValue("pg_catalog"))
		}
		for _, s := range r.session.path() {
			if r.session.schemaExists(s) {
				items = append(items, pgsql.StrValue(s))
			}
		}
		return text(pgsql.ArrayText(items))
	}},
	{"pg_setting", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		v, ok := r.session.settings.show(str(a[0]))
		if !ok && len(a) > 1 && a[1].Int != 0 {
			return pgsql.Value{}, nil
		}
		if !ok {
			return a[0], noSetting(str(a[0]))
		}
		return text(v)
	}},
	{"pg_set_config", 3, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		err := r.session.setSetting(str(a[0]), str(a[1]), a[2].Int != 0)
		return a[1], err
	}},
	{"pg_pid", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return number(int64(r.session.pid)) }},
	{"pg_txid", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return number(r.session.txid) }},
	{"pg_start_time", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) {
		return text(pgsql.TimeText(r.session.server.started))
	}},
	{"pg_notify", 2, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		return pgsql.StrValue(""), r.session.notifyIn(r.tx, str(a[0]), str(a[1]))
	}},
	{"pg_cancel", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		return yes(r.session.server.cancelPID(uint32(a[0].Int), r.session))
	}},
	{"pg_uuid", 0, false, func(*run, []pgsql.Value) (pgsql.Value, error) {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		return pgsql.ParseText(hex.EncodeToString(b[:]), pgsql.UUID, time.UTC)
	}},
	{"pg_to_regclass", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return r.regclass(a[0], false) }},
	{"pg_userbyid", 1, true, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return text(r.session.user) }},
	{"pg_table_visible", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		return yes(r.session.visible(oid(a[0])))
	}},
	{"pg_format_type", 2, false, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		if a[0].IsNull() {
			return pgsql.Value{}, nil
		}
		return text(pgsql.TypeOf(oid(a[0])).SQL)
	}},
	{"pg_indexdef", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return r.indexDef(a) }},
	{"pg_constraintdef", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return r.constraintDef(a) }},
	{"pg_size_pretty", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(str(a[0]) + " bytes") }},
}
