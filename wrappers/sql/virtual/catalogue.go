package virtual

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// A catalogueEntry is one table of pg_catalog or information_schema. Those without rows are asked for by clients and
// have nothing to say here.
type catalogueEntry struct {
	pgsql.Table
	rows func(*schema, *session) [][]pgsql.Value
}

// rec is one row of the catalogue, by column; what is not mentioned is null.
type rec map[string]any

// Namespaces of the system's own have the OIDs that PostgreSQL gives them.
const (
	catalogNamespace = 11
	publicNamespace  = 2200
	infoNamespace    = 13000
	ownerOID         = 10
	databaseOID      = 16384
	heapAM           = 2
	btreeAM          = 403
)

func namespaceOID(name string) int64 {
	switch name {
	case "pg_catalog":
		return catalogNamespace
	case "public":
		return publicNamespace
	case "information_schema":
		return infoNamespace
	}
	return int64(oidOf("schema " + name))
}

// indexOID and constraintOID are those of a table's key.
func indexOID(t *table) int64      { return int64(t.OID)<<1&0x7fffffff | 1<<31 }
func constraintOID(t *table) int64 { return int64(t.OID)<<1&0x7fffffff | 1<<31 | 1 }

func catalogueTableOf(name, columns string, rows func(*schema, *session) []rec) catalogueEntry {
	namespace, table, _ := strings.Cut(name, ".")
	e := catalogueEntry{Table: pgsql.Table{Schema: namespace, Name: table, OID: oidOf(name) & 0x3fff, Catalogue: true}}
	for col := range strings.SplitSeq(columns, ",") {
		f := strings.Fields(col)
		o, ok := pgsql.TypeNamed(f[1])
		if !ok {
			panic("catalogue: type " + f[1])
		}
		e.Columns = append(e.Columns, pgsql.Column{Name: f[0], Type: o})
	}
	if rows == nil {
		return e
	}
	columnNames := e.Columns
	e.rows = func(s *schema, se *session) [][]pgsql.Value {
		recs := rows(s, se)
		out := make([][]pgsql.Value, len(recs))
		for i, r := range recs {
			out[i] = make([]pgsql.Value, len(columnNames))
			for j, c := range columnNames {
				switch v := r[c.Name].(type) {
				case string:
					out[i][j] = pgsql.StrValue(v)
				case bool:
					out[i][j] = pgsql.BoolValue(v)
				case int:
					out[i][j] = pgsql.IntValue(int64(v))
				case int64:
					out[i][j] = pgsql.IntValue(v)
				}
			}
		}
		return out
	}
	return e
}

func (s *schema) schemas() []string {
	names := []string{"information_schema", "pg_catalog", "public"}
	for _, t := range s.tables {
		known := false
		for _, n := range names {
			known = known || n == t.Schema
		}
		if !known {
			names = append(names, t.Schema)
		}
	}
	return names
}

var catalogue = []catalogueEntry{}

func init() {
	catalogue = append(catalogue,
		catalogueTableOf("pg_catalog.pg_namespace", "oid oid, nspname name, nspowner oid, nspacl _text", func(s *schema, _ *session) []rec {
			var out []rec
			for _, n := range s.schemas() {
				out = append(out, rec{"oid": namespaceOID(n), "nspname": n, "nspowner": ownerOID})
			}
			return out
		}),
		catalogueTableOf("pg_catalog.pg_class", `oid oid, relname name, relnamespace oid, reltype oid, reloftype oid, relowner oid, relam oid, relfilenode oid,
			reltablespace oid, relpages int4, reltuples float4, relallvisible int4, reltoastrelid oid, relhasindex bool, relisshared bool, relpersistence char,
			relkind char, relnatts int2, relchecks int2, relhasrules bool, relhastriggers bool, relhassubclass bool, relrowsecurity bool, relforcerowsecurity bool,
			relispopulated bool, relreplident char, relispartition bool, relrewrite oid, relfrozenxid xid, relminmxid xid, relacl _text, reloptions _text,
			relpartbound text, relhasoids bool`, classRows),
		catalogueTableOf("pg_catalog.pg_attribute", `attrelid oid, attname name, atttypid oid, attstattarget int4, attlen int2, attnum int2, attndims int4,
			attcacheoff int4, atttypmod int4, attbyval bool, attalign char, attstorage char, attcompression char, attnotnull bool, atthasdef bool, atthasmissing bool,
			attidentity char, attgenerated char, attisdropped bool, attislocal bool, attinhcount int4, attcollation oid, attacl _text, attoptions _text,
			attfdwoptions _text, attmissingval text`, attributeRows),
		catalogueTableOf("pg_catalog.pg_type", `oid oid, typname name, typnamespace oid, typowner oid, typlen int2, typbyval bool, typtype char, typcategory char,
			typispreferred bool, typisdefined bool, typdelim char, typrelid oid, typsubscript regproc, typelem oid, typarray oid, typinput regproc, typoutput regproc,
			typreceive regproc, typsend regproc, typmodin regproc, typmodout regproc, typanalyze regproc, typalign char, typstorage char, typnotnull bool,
			typbasetype oid, typtypmod int4, typndims int4, typcollation oid, typdefaultbin text, typdefault text, typacl _text`, typeRows),
		catalogueTableOf("pg_catalog.pg_index", `indexrelid oid, indrelid oid, indnatts int2, indnkeyatts int2, indisunique bool, indnullsnotdistinct bool,
			indisprimary bool, indisexclusion bool, indimmediate bool, indisclustered bool, indisvalid bool, indcheckxmin bool, indisready bool, indislive bool,
			indisreplident bool, indkey int2vector, indcollation oidvector, indclass oidvector, indoption int2vector, indexprs text, indpred text`, func(s *schema, _ *session) []rec {
			var out []rec
			for _, t := range s.tables {
				out = append(out, rec{"indexrelid": indexOID(t), "indrelid": int64(t.OID), "indnatts": len(t.keys), "indnkeyatts": len(t.keys), "indisunique": true,
					"indnullsnotdistinct": false, "indisprimary": true, "indisexclusion": false, "indimmediate": true, "indisclustered": false, "indisvalid": true,
					"indcheckxmin": false, "indisready": true, "indislive": true, "indisreplident": false, "indkey": numbers(len(t.keys), 1), "indoption": numbers(len(t.keys), 0)})
			}
			return out
		}),
		catalogueTableOf("pg_catalog.pg_constraint", `oid oid, conname name, connamespace oid, contype char, condeferrable bool, condeferred bool, convalidated bool,
			conrelid oid, contypid oid, conindid oid, conparentid oid, confrelid oid, confupdtype char, confdeltype char, confmatchtype char, conislocal bool,
			coninhcount int4, connoinherit bool, conkey _int2, confkey _int2, conpfeqop _oid, conppeqop _oid, conffeqop _oid, conbin text, consrc text`, func(s *schema, _ *session) []rec {
			var out []rec
			for _, t := range s.tables {
				out = append(out, rec{"oid": constraintOID(t), "conname": t.Name + "_pkey", "connamespace": namespaceOID(t.Schema), "contype": "p", "condeferrable": false,
					"condeferred": false, "convalidated": true, "conrelid": int64(t.OID), "contypid": 0, "conindid": indexOID(t), "conparentid": 0, "confrelid": 0,
					"conislocal": true, "coninhcount": 0, "connoinherit": true, "conkey": "{" + strings.ReplaceAll(numbers(len(t.keys), 1), " ", ",") + "}"})
			}
			return out
		}),
		catalogueTableOf("pg_catalog.pg_database", `oid oid, datname name, datdba oid, encoding int4, datlocprovider char, datistemplate bool, datallowconn bool,
			datconnlimit int4, datfrozenxid xid, datminmxid xid, dattablespace oid, datcollate text, datctype text, daticulocale text, datcollversion text, datacl _text`, func(_ *schema, se *session) []rec {
			return []rec{{"oid": databaseOID, "datname": se.database, "datdba": ownerOID, "encoding": 6, "datlocprovider": "c", "datistemplate": false, "datallowconn": true,
				"datconnlimit": -1, "dattablespace": 1663, "datcollate": "C", "datctype": "C.UTF-8"}}
		}),
		catalogueTableOf("pg_catalog.pg_roles", `oid oid, rolname name, rolsuper bool, rolinherit bool, rolcreaterole bool, rolcreatedb bool, rolcanlogin bool,
			rolreplication bool, rolconnlimit int4, rolpassword text, rolvaliduntil timestamptz, rolbypassrls bool, rolconfig _text`, roleRows),
		catalogueTableOf("pg_catalog.pg_authid", `oid oid, rolname name, rolsuper bool, rolinherit bool, rolcreaterole bool, rolcreatedb bool, rolcanlogin bool,
			rolreplication bool, rolbypassrls bool, rolconnlimit int4, rolpassword text, rolvaliduntil timestamptz`, roleRows),
		catalogueTableOf("pg_catalog.pg_user", `usename name, usesysid oid, usecreatedb bool, usesuper bool, userepl bool, usebypassrls bool, passwd text, valuntil timestamptz, useconfig _text`, func(_ *schema, se *session) []rec {
			return []rec{{"usename": se.user, "usesysid": ownerOID, "usecreatedb": false, "usesuper": false, "userepl": false, "usebypassrls": false, "passwd": "********"}}
		}),
		catalogueTableOf("pg_catalog.pg_tables", `schemaname name, tablename name, tableowner name, tablespace name, hasindexes bool, hasrules bool, hastriggers bool, rowsecurity bool`, func(s *schema, se *session) []rec {
			var out []rec
			for _, t := range s.tables {
				out = append(out, rec{"schemaname": t.Schema, "tablename": t.Name, "tableowner": se.user, "hasindexes": true, "hasrules": false, "hastriggers": false, "rowsecurity": false})
			}
			return out
		}),
		catalogueTableOf("pg_catalog.pg_indexes", `schemaname name, tablename name, indexname name, tablespace name, indexdef text`, func(s *schema, _ *session) []rec {
			var out []rec
			for _, t := range s.tables {
				out = append(out, rec{"schemaname": t.Schema, "tablename": t.Name, "indexname": t.Name + "_pkey", "indexdef": t.indexDef()})
			}
			return out
		}),
		catalogueTableOf("pg_catalog.pg_settings", `name text, setting text, unit text, category text, short_desc text, extra_desc text, context text, vartype text,
			source text, min_val text, max_val text, enumvals _text, boot_val text, reset_val text, sourcefile text, sourceline int4, pending_restart bool`, func(_ *schema, se *session) []rec {
			var out []rec
			for _, name := range se.settings.names() {
				v, _ := se.settings.show(name)
				out = append(out, rec{"name": name, "setting": v, "context": "user", "vartype": "string", "source": "default", "boot_val": v, "reset_val": v, "pending_restart": false})
			}
			return out
		}),
		catalogueTableOf("pg_catalog.pg_am", "oid oid, amname name, amhandler regproc, amtype char", func(*schema, *session) []rec {
			return []rec{{"oid": heapAM, "amname": "heap", "amtype": "t"}, {"oid": btreeAM, "amname": "btree", "amtype": "i"}}
		}),
		catalogueTableOf("pg_catalog.pg_tablespace", "oid oid, spcname name, spcowner oid, spcacl _text, spcoptions _text", func(*schema, *session) []rec {
			return []rec{{"oid": 1663, "spcname": "pg_default", "spcowner": ownerOID}}
		}),
		// Drivers tell arrays by the function that reads them. A regproc is a name here, and so is what it refers to.
		catalogueTableOf("pg_catalog.pg_proc", "oid oid, proname name, pronamespace oid, proowner oid, prolang oid, prokind char, prosecdef bool, proretset bool, prorettype oid, pronargs int2, proargtypes oidvector, proallargtypes _oid, proargmodes _char, proargnames _text, prosrc text, provolatile char, proparallel char, proacl _text, proisstrict bool, proleakproof bool, procost float4, prorows float4", func(*schema, *session) []rec {
			return []rec{{"oid": "array_in", "proname": "array_in"}, {"oid": "array_recv", "proname": "array_recv"}}
		}),
		catalogueTableOf("pg_catalog.pg_collation", "oid oid, collname name, collnamespace oid, collowner oid, collprovider char, collisdeterministic bool, collencoding int4, collcollate text, collctype text", func(*schema, *session) []rec {
			return []rec{{"oid": 100, "collname": "default", "collnamespace": catalogNamespace, "collprovider": "d"}, {"oid": 950, "collname": "C", "collnamespace": catalogNamespace, "collprovider": "c"}}
		}),
		catalogueTableOf("pg_catalog.pg_stat_activity", `datid oid, datname name, pid int4, leader_pid int4, usesysid oid, usename name, application_name text, client_addr text,
			client_hostname text, client_port int4, backend_start timestamptz, xact_start timestamptz, query_start timestamptz, state_change timestamptz,
			wait_event_type text, wait_event text, state text, backend_xid xid, backend_xmin xid, query_id int8, query text, backend_type text`, func(_ *schema, se *session) []rec { return se.server.activity() }),
		catalogueTableOf("pg_catalog.pg_cursors", "name text, statement text, is_holdable bool, is_binary bool, is_scrollable bool, creation_time timestamptz", func(_ *schema, se *session) []rec {
			var out []rec
			for _, name := range slices.Sorted(maps.Keys(se.portals)) {
				if p := se.portals[name]; p.cursor {
					out = append(out, rec{"name": name, "is_holdable": false, "is_binary": false, "is_scrollable": false, "creation_time": pgsql.TimeText(se.txNow)})
				}
			}
			return out
		}),
		catalogueTableOf("information_schema.schemata", "catalog_name name, schema_name name, schema_owner name, default_character_set_catalog name, default_character_set_schema name, default_character_set_name name, sql_path text", func(s *schema, se *session) []rec {
			var out []rec
			for _, n := range s.schemas() {
				out = append(out, rec{"catalog_name": se.database, "schema_name": n, "schema_owner": se.user})
			}
			return out
		}),
		catalogueTableOf("information_schema.tables", `table_catalog name, table_schema name, table_name name, table_type text, self_referencing_column_name name, reference_generation text,
			user_defined_type_catalog name, user_defined_type_schema name, user_defined_type_name name, is_insertable_into text, is_typed text, commit_action text`, func(s *schema, se *session) []rec {
			var out []rec
			for _, t := range s.tables {
				out = append(out, rec{"table_catalog": se.database, "table_schema": t.Schema, "table_name": t.Name, "table_type": "BASE TABLE", "is_insertable_into": yesNo(t.inAny), "is_typed": "NO"})
			}
			return out
		}),
		catalogueTableOf("information_schema.columns", `table_catalog name, table_schema name, table_name name, column_name name, ordinal_position int4, column_default text,
			is_nullable text, data_type text, character_maximum_length int4, character_octet_length int4, numeric_precision int4, numeric_precision_radix int4, numeric_scale int4,
			datetime_precision int4, interval_type text, collation_name name, domain_name name, udt_catalog name, udt_schema name, udt_name name, is_identity text,
			is_generated text, generation_expression text, is_updatable text`, func(s *schema, se *session) []rec {
			var out []rec
			for _, t := range s.tables {
				for i, c := range t.Columns {
					out = append(out, rec{"table_catalog": se.database, "table_schema": t.Schema, "table_name": t.Name, "column_name": c.Name, "ordinal_position": i + 1,
						"is_nullable": yesNo(!c.NotNull), "data_type": pgsql.TypeOf(c.Type).SQL, "udt_catalog": se.database, "udt_schema": "pg_catalog",
						"udt_name": pgsql.TypeOf(c.Type).Name, "is_identity": "NO", "is_generated": "NEVER", "is_updatable": yesNo(t.in[i])})
				}
			}
			return out
		}),
		catalogueTableOf("information_schema.table_constraints", `constraint_catalog name, constraint_schema name, constraint_name name, table_catalog name, table_schema name,
			table_name name, constraint_type text, is_deferrable text, initially_deferred text, enforced text`, func(s *schema, se *session) []rec {
			var out []rec
			for _, t := range s.tables {
				out = append(out, rec{"constraint_catalog": se.database, "constraint_schema": t.Schema, "constraint_name": t.Name + "_pkey", "table_catalog": se.database,
					"table_schema": t.Schema, "table_name": t.Name, "constraint_type": "PRIMARY KEY", "is_deferrable": "NO", "initially_deferred": "NO", "enforced": "YES"})
			}
			return out
		}),
		catalogueTableOf("information_schema.key_column_usage", `constraint_catalog name, constraint_schema name, constraint_name name, table_catalog name, table_schema name,
			table_name name, column_name name, ordinal_position int4, position_in_unique_constraint int4`, func(s *schema, se *session) []rec {
			var out []rec
			for _, t := range s.tables {
				for i, k := range t.keys {
					out = append(out, rec{"constraint_catalog": se.database, "constraint_schema": t.Schema, "constraint_name": t.Name + "_pkey", "table_catalog": se.database,
						"table_schema": t.Schema, "table_name": t.Name, "column_name": t.Columns[k.column].Name, "ordinal_position": i + 1})
				}
			}
			return out
		}),
	)
	for name, columns := range map[string]string{
		"pg_attrdef":               "oid oid, adrelid oid, adnum int2, adbin text, adsrc text",
		"pg_auth_members":          "oid oid, roleid oid, member oid, grantor oid, admin_option bool",
		"pg_cast":                  "oid oid, castsource oid, casttarget oid, castfunc oid, castcontext char, castmethod char",
		"pg_db_role_setting":       "setdatabase oid, setrole oid, setconfig _text",
		"pg_depend":                "classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, refobjsubid int4, deptype char",
		"pg_description":           "objoid oid, classoid oid, objsubid int4, description text",
		"pg_enum":                  "oid oid, enumtypid oid, enumsortorder float4, enumlabel name",
		"pg_event_trigger":         "oid oid, evtname name, evtevent name, evtowner oid, evtfoid oid, evtenabled char, evttags _text",
		"pg_extension":             "oid oid, extname name, extowner oid, extnamespace oid, extrelocatable bool, extversion text, extconfig _oid, extcondition _text",
		"pg_foreign_server":        "oid oid, srvname name, srvowner oid, srvfdw oid, srvtype text, srvversion text, srvacl _text, srvoptions _text",
		"pg_foreign_table":         "ftrelid oid, ftserver oid, ftoptions _text",
		"pg_inherits":              "inhrelid oid, inhparent oid, inhseqno int4, inhdetachpending bool",
		"pg_language":              "oid oid, lanname name, lanowner oid, lanispl bool, lanpltrusted bool, lanplcallfoid oid, laninline oid, lanvalidator oid, lanacl _text",
		"pg_locks":                 "locktype text, database oid, relation oid, pid int4, mode text, granted bool",
		"pg_matviews":              "schemaname name, matviewname name, matviewowner name, tablespace name, hasindexes bool, ispopulated bool, definition text",
		"pg_opclass":               "oid oid, opcmethod oid, opcname name, opcnamespace oid, opcowner oid, opcfamily oid, opcintype oid, opcdefault bool, opckeytype oid",
		"pg_operator":              "oid oid, oprname name, oprnamespace oid, oprowner oid, oprkind char, oprleft oid, oprright oid, oprresult oid",
		"pg_partitioned_table":     "partrelid oid, partstrat char, partnatts int2, partdefid oid, partattrs int2vector",
		"pg_policy":                "oid oid, polname name, polrelid oid, polcmd char, polpermissive bool, polroles _oid, polqual text, polwithcheck text",
		"pg_prepared_statements":   "name text, statement text, prepare_time timestamptz, parameter_types text, from_sql bool",
		"pg_publication":           "oid oid, pubname name, pubowner oid, puballtables bool, pubinsert bool, pubupdate bool, pubdelete bool, pubtruncate bool, pubviaroot bool",
		"pg_publication_rel":       "oid oid, prpubid oid, prrelid oid, prqual text, prattrs int2vector",
		"pg_publication_namespace": "oid oid, pnpubid oid, pnnspid oid",
		"pg_range":                 "rngtypid oid, rngsubtype oid, rngmultitypid oid, rngcollation oid, rngsubopc oid, rngcanonical regproc, rngsubdiff regproc",
		"pg_replication_slots":     "slot_name name, plugin name, slot_type text, active bool, restart_lsn text, confirmed_flush_lsn text",
		"pg_rewrite":               "oid oid, rulename name, ev_class oid, ev_type char, ev_enabled char, is_instead bool, ev_qual text, ev_action text",
		"pg_sequence":              "seqrelid oid, seqtypid oid, seqstart int8, seqincrement int8, seqmax int8, seqmin int8, seqcache int8, seqcycle bool",
		"pg_sequences":             "schemaname name, sequencename name, sequenceowner name, last_value int8",
		"pg_shdescription":         "objoid oid, classoid oid, description text",
		"pg_statistic_ext":         "oid oid, stxrelid oid, stxname name, stxnamespace oid, stxowner oid, stxstattarget int4, stxkeys int2vector, stxkind _char, stxexprs text",
		"pg_stat_user_tables":      "relid oid, schemaname name, relname name, n_live_tup int8",
		"pg_subscription":          "oid oid, subdbid oid, subname name, subowner oid, subenabled bool",
		"pg_trigger":               "oid oid, tgrelid oid, tgparentid oid, tgname name, tgfoid oid, tgtype int2, tgenabled char, tgisinternal bool, tgconstrrelid oid, tgconstrindid oid, tgconstraint oid, tgdeferrable bool, tginitdeferred bool",
		"pg_views":                 "schemaname name, viewname name, viewowner name, definition text",
	} {
		catalogue = append(catalogue, catalogueTableOf("pg_catalog."+name, columns, nil))
	}
	for name, columns := range map[string]string{
		"views":                   "table_catalog name, table_schema name, table_name name, view_definition text",
		"routines":                "specific_catalog name, specific_schema name, specific_name name, routine_catalog name, routine_schema name, routine_name name, routine_type text, data_type text",
		"sequences":               "sequence_catalog name, sequence_schema name, sequence_name name, data_type text",
		"triggers":                "trigger_catalog name, trigger_schema name, trigger_name name, event_object_schema name, event_object_table name",
		"referential_constraints": "constraint_catalog name, constraint_schema name, constraint_name name, unique_constraint_catalog name, unique_constraint_schema name, unique_constraint_name name, match_option text, update_rule text, delete_rule text",
		"constraint_column_usage": "table_catalog name, table_schema name, table_name name, column_name name, constraint_catalog name, constraint_schema name, constraint_name name",
		"table_privileges":        "grantor name, grantee name, table_catalog name, table_schema name, table_name name, privilege_type text",
	} {
		catalogue = append(catalogue, catalogueTableOf("information_schema."+name, columns, nil))
	}
}

// numbers gives n numbers from first on, as a vector; all 0 if first is 0.
func numbers(n, first int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(' ')
		}
		if first == 0 {
			b.WriteByte('0')
		} else {
			fmt.Fprint(&b, first+i)
		}
	}
	return b.String()
}

func yesNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}

func roleRows(_ *schema, se *session) []rec {
	return []rec{{"oid": ownerOID, "rolname": se.user, "rolsuper": false, "rolinherit": true, "rolcreaterole": false, "rolcreatedb": false, "rolcanlogin": true,
		"rolreplication": false, "rolconnlimit": -1, "rolbypassrls": false, "rolpassword": "********"}}
}

func classRows(s *schema, _ *session) []rec {
	var out []rec
	common := func(r rec) rec {
		for k, v := range (rec{"reloftype": 0, "relowner": ownerOID, "relfilenode": 0, "reltablespace": 0, "relpages": 0, "reltuples": -1, "relallvisible": 0,
			"reltoastrelid": 0, "relisshared": false, "relpersistence": "p", "relchecks": 0, "relhasrules": false, "relhastriggers": false, "relhassubclass": false,
			"relrowsecurity": false, "relforcerowsecurity": false, "relispopulated": true, "relreplident": "d", "relispartition": false, "relrewrite": 0, "relhasoids": false}) {
			r[k] = v
		}
		return r
	}
	for _, t := range s.tables {
		out = append(out,
			common(rec{"oid": int64(t.OID), "relname": t.Name, "relnamespace": namespaceOID(t.Schema), "reltype": 0, "relam": heapAM, "relhasindex": true, "relkind": "r", "relnatts": len(t.Columns)}),
			common(rec{"oid": indexOID(t), "relname": t.Name + "_pkey", "relnamespace": namespaceOID(t.Schema), "reltype": 0, "relam": btreeAM, "relhasindex": false, "relkind": "i", "relnatts": len(t.keys)}))
	}
	for i := range catalogue {
		c := &catalogue[i]
		out = append(out, common(rec{"oid": int64(c.OID), "relname": c.Name, "relnamespace": namespaceOID(c.Schema), "reltype": 0, "relam": heapAM, "relhasindex": false, "relkind": "v", "relnatts": len(c.Columns)}))
	}
	return out
}

func attributeRows(s *schema, _ *session) []rec {
	var out []rec
	add := func(relation int64, i int, c pgsql.Column) {
		typ := pgsql.TypeOf(c.Type)
		out = append(out, rec{"attrelid": relation, "attname": c.Name, "atttypid": int64(c.Type), "attstattarget": -1, "attlen": int(typ.Size), "attnum": i + 1, "attndims": 0,
			"attcacheoff": -1, "atttypmod": -1, "attbyval": typ.Size > 0 && typ.Size <= 8, "attalign": "i", "attstorage": "p", "attcompression": "", "attnotnull": c.NotNull,
			"atthasdef": false, "atthasmissing": false, "attidentity": "", "attgenerated": "", "attisdropped": false, "attislocal": true, "attinhcount": 0, "attcollation": 0})
	}
	for _, t := range s.tables {
		for i, c := range t.Columns {
			add(int64(t.OID), i, c)
		}
		for i, k := range t.keys {
			add(indexOID(t), i, t.Columns[k.column])
		}
	}
	for i := range catalogue {
		for j, c := range catalogue[i].Columns {
			add(int64(catalogue[i].OID), j, c)
		}
	}
	return out
}

func typeRows(*schema, *session) []rec {
	var out []rec
	for i := range pgsql.Types {
		t := &pgsql.Types[i]
		kind, input := "b", t.Name+"in"
		if t.Category == 'P' || t.Category == 'X' {
			kind = "p"
		}
		if t.Category == 'A' {
			input = "array_in"
		}
		out = append(out, rec{"oid": int64(t.OID), "typname": t.Name, "typnamespace": catalogNamespace, "typowner": ownerOID, "typlen": int(t.Size), "typbyval": t.Size > 0 && t.Size <= 8,
			"typtype": kind, "typcategory": string(t.Category), "typispreferred": false, "typisdefined": true, "typdelim": ",", "typrelid": 0, "typelem": int64(t.Elem),
			"typarray": int64(t.Array), "typinput": input, "typoutput": strings.TrimSuffix(input, "in") + "out", "typreceive": strings.TrimSuffix(input, "in") + "recv",
			"typsend": strings.TrimSuffix(input, "in") + "send", "typmodin": "-", "typmodout": "-", "typanalyze": "-", "typalign": "i", "typstorage": "p",
			"typnotnull": false, "typbasetype": 0, "typtypmod": -1, "typndims": 0, "typcollation": 0, "typsubscript": "-"})
	}
	return out
}

func (t *table) keyNames() string {
	var names []string
	for _, k := range t.keys {
		names = append(names, pgsql.QuoteIdent(t.Columns[k.column].Name))
	}
	return strings.Join(names, ", ")
}

func (t *table) indexDef() string {
	return fmt.Sprintf("CREATE UNIQUE INDEX %s ON %s.%s USING btree (%s)", pgsql.QuoteIdent(t.Name+"_pkey"), pgsql.QuoteIdent(t.Schema), pgsql.QuoteIdent(t.Name), t.keyNames())
}

func (r *run) indexDef(a []pgsql.Value) (pgsql.Value, error) {
	for _, t := range r.session.schema().tables {
		if indexOID(t) != a[0].Int {
			continue
		}
		if len(a) > 1 && a[1].Int > 0 {
			if n := int(a[1].Int); n <= len(t.keys) {
				return text(pgsql.QuoteIdent(t.Columns[t.keys[n-1].column].Name))
			}
			return pgsql.Value{}, nil
		}
		return text(t.indexDef())
	}
	return pgsql.Value{}, nil
}

func (r *run) constraintDef(a []pgsql.Value) (pgsql.Value, error) {
	for _, t := range r.session.schema().tables {
		if constraintOID(t) == a[0].Int {
			return text("PRIMARY KEY (" + t.keyNames() + ")")
		}
	}
	return pgsql.Value{}, nil
}

// regclass finds a relation by name.
func (r *run) regclass(v pgsql.Value, must bool) (pgsql.Value, error) {
	if v.Kind == pgsql.Int {
		return v, nil
	}
	if strings.Trim(v.Str, "0123456789") == "" && v.Str != "" {
		return pgsql.ParseText(v.Str, pgsql.Oid, nil)
	}
	schema, name := "", ""
	for i, part := range splitName(v.Str) {
		if i > 0 {
			schema = name
		}
		name = part
	}
	if t := (finder{r.session.schema(), r.session.path()}).Find(schema, name); t != nil {
		return number(int64(t.OID))
	}
	for _, t := range r.session.schema().tables {
		if t.Name+"_pkey" == name {
			return number(indexOID(t))
		}
	}
	if !must {
		return pgsql.Value{}, nil
	}
	return v, pgsql.Errorf(pgsql.UndefinedTable, "relation \"%s\" does not exist", v.Str)
}

// splitName takes apart a name with dots and quotes.
func splitName(s string) []string {
	var parts []string
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && quoted && i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		case c == '"':
			quoted = !quoted
		case c == '.' && !quoted:
			parts = append(parts, b.String())
			b.Reset()
		case quoted:
			b.WriteByte(c)
		default:
			b.WriteString(strings.ToLower(string(c)))
		}
	}
	return append(parts, b.String())
}

// className is how a relation's name is shown.
func (r *run) className(o pgsql.OID) string {
	show := func(schema, name string) string {
		if t := (finder{r.session.schema(), r.session.path()}).Find("", name); t != nil && t.Schema == schema {
			return pgsql.QuoteIdent(name)
		}
		return pgsql.QuoteIdent(schema) + "." + pgsql.QuoteIdent(name)
	}
	for _, t := range r.session.schema().tables {
		if t.OID == o {
			return show(t.Schema, t.Name)
		}
		if indexOID(t) == int64(o) {
			return pgsql.QuoteIdent(t.Name + "_pkey")
		}
	}
	for i := range catalogue {
		if catalogue[i].OID == o {
			return show(catalogue[i].Schema, catalogue[i].Name)
		}
	}
	return fmt.Sprint(o)
}
