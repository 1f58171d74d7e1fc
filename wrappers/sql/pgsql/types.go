package pgsql

import "strings"

// An OID names a type, as the catalogue pg_type numbers them.
type OID uint32

// The types. Untyped is a literal or parameter that takes the type of what stands beside it.
const (
	Bool        OID = 16
	Bytea       OID = 17
	Char        OID = 18
	Name        OID = 19
	Int8        OID = 20
	Int2        OID = 21
	Int4        OID = 23
	Regproc     OID = 24
	Text        OID = 25
	Oid         OID = 26
	JSON        OID = 114
	Float4      OID = 700
	Float8      OID = 701
	Untyped     OID = 705
	BPChar      OID = 1042
	Varchar     OID = 1043
	Date        OID = 1082
	Time        OID = 1083
	Timestamp   OID = 1114
	Timestamptz OID = 1184
	Interval    OID = 1186
	Numeric     OID = 1700
	Regclass    OID = 2205
	Regtype     OID = 2206
	UUID        OID = 2950
	JSONB       OID = 3802
	Void        OID = 2278
	TextArray   OID = 1009
	Int8Array   OID = 1016
	Int4Array   OID = 1007
	Int2Array   OID = 1005
	OidArray    OID = 1028
	NameArray   OID = 1003
	CharArray   OID = 1002
	Int2Vector  OID = 22
	OidVector   OID = 30
	Record      OID = 2249
	BoolArray   OID = 1000
	Float8Array OID = 1022
	NumArray    OID = 1231
	TSTZArray   OID = 1185
	VarArray    OID = 1015
	AnyType     OID = 2276
	ACLArray    OID = 1034
	NodeTree    OID = 194
	Xid         OID = 28
)

// A Type is one row of pg_type.
type Type struct {
	OID      OID
	Name     string // as pg_type has it: "int8"
	SQL      string // as format_type says: "bigint"
	Size     int16  // -1: varying
	Category byte
	Array    OID // of its arrays
	Elem     OID // of an array
}

// Types lists all, by OID.
var Types = []Type{
	{Bool, "bool", "boolean", 1, 'B', BoolArray, 0},
	{Bytea, "bytea", "bytea", -1, 'U', 1001, 0},
	{Char, "char", `"char"`, 1, 'Z', CharArray, 0},
	{Name, "name", "name", 64, 'S', NameArray, 0},
	{Int8, "int8", "bigint", 8, 'N', Int8Array, 0},
	{Int2, "int2", "smallint", 2, 'N', Int2Array, 0},
	{Int2Vector, "int2vector", "int2vector", -1, 'A', 1006, Int2},
	{Int4, "int4", "integer", 4, 'N', Int4Array, 0},
	{Regproc, "regproc", "regproc", 4, 'N', 1008, 0},
	{Text, "text", "text", -1, 'S', TextArray, 0},
	{Oid, "oid", "oid", 4, 'N', OidArray, 0},
	{Xid, "xid", "xid", 4, 'U', 1011, 0},
	{OidVector, "oidvector", "oidvector", -1, 'A', 1013, Oid},
	{Record, "record", "record", -1, 'P', 2287, 0},
	{JSON, "json", "json", -1, 'U', 199, 0},
	{NodeTree, "pg_node_tree", "pg_node_tree", -1, 'Z', 0, 0},
	{Float4, "float4", "real", 4, 'N', 1021, 0},
	{Float8, "float8", "double precision", 8, 'N', Float8Array, 0},
	{Untyped, "unknown", "unknown", -2, 'X', 0, 0},
	{BoolArray, "_bool", "boolean[]", -1, 'A', 0, Bool},
	{CharArray, "_char", `"char"[]`, -1, 'A', 0, Char},
	{NameArray, "_name", "name[]", -1, 'A', 0, Name},
	{Int2Array, "_int2", "smallint[]", -1, 'A', 0, Int2},
	{Int4Array, "_int4", "integer[]", -1, 'A', 0, Int4},
	{TextArray, "_text", "text[]", -1, 'A', 0, Text},
	{VarArray, "_varchar", "character varying[]", -1, 'A', 0, Varchar},
	{Int8Array, "_int8", "bigint[]", -1, 'A', 0, Int8},
	{Float8Array, "_float8", "double precision[]", -1, 'A', 0, Float8},
	{OidArray, "_oid", "oid[]", -1, 'A', 0, Oid},
	{ACLArray, "_aclitem", "aclitem[]", -1, 'A', 0, Text},
	{BPChar, "bpchar", "character", -1, 'S', 1014, 0},
	{Varchar, "varchar", "character varying", -1, 'S', VarArray, 0},
	{Date, "date", "date", 4, 'D', 1182, 0},
	{Time, "time", "time without time zone", 8, 'D', 1183, 0},
	{Timestamp, "timestamp", "timestamp without time zone", 8, 'D', 1115, 0},
	{Timestamptz, "timestamptz", "timestamp with time zone", 8, 'D', TSTZArray, 0},
	{TSTZArray, "_timestamptz", "timestamp with time zone[]", -1, 'A', 0, Timestamptz},
	{Interval, "interval", "interval", 16, 'T', 1187, 0},
	{NumArray, "_numeric", "numeric[]", -1, 'A', 0, Numeric},
	{Numeric, "numeric", "numeric", -1, 'N', NumArray, 0},
	{Regclass, "regclass", "regclass", 4, 'N', 2210, 0},
	{Regtype, "regtype", "regtype", 4, 'N', 2211, 0},
	{AnyType, "any", `"any"`, 4, 'P', 0, 0},
	{Void, "void", "void", 4, 'P', 0, 0},
	{UUID, "uuid", "uuid", 16, 'U', 2951, 0},
	{JSONB, "jsonb", "jsonb", -1, 'U', 3807, 0},
}

var (
	typeByOID  = map[OID]*Type{}
	typeByName = map[string]OID{
		"boolean": Bool, "smallint": Int2, "integer": Int4, "int": Int4, "bigint": Int8, "real": Float4, "float": Float8,
		"double precision": Float8, "decimal": Numeric, "dec": Numeric, "character varying": Varchar, "character": BPChar,
		"timestamp without time zone": Timestamp, "timestamp with time zone": Timestamptz, "time without time zone": Time,
		"string": Text, "regnamespace": Oid, "regprocedure": Regproc, "regrole": Oid, "regoper": Oid, "serial": Int4, "bigserial": Int8,
	}
)

func init() {
	for i := range Types {
		t := &Types[i]
		typeByOID[t.OID] = t
		typeByName[t.Name] = t.OID
	}
}

// TypeOf gives the row of pg_type for an OID, that of text for one it does not know.
func TypeOf(o OID) *Type {
	if t := typeByOID[o]; t != nil {
		return t
	}
	return typeByOID[Text]
}

// TypeNamed finds a type by a name as SQL has it.
func TypeNamed(name string) (OID, bool) {
	o, ok := typeByName[strings.ToLower(name)]
	return o, ok
}

func arrayOf(o OID) OID {
	if t := typeByOID[o]; t != nil && typeByOID[t.Array] != nil {
		return t.Array
	}
	return TextArray
}

func elemOf(o OID) OID {
	if t := typeByOID[o]; t != nil && t.Elem != 0 {
		return t.Elem
	}
	return 0
}

func isInt(o OID) bool { return o == Int8 || o == Int4 || o == Int2 }

func isNumber(o OID) bool { return isInt(o) || o == Numeric || o == Float8 || o == Float4 || o == Oid }

func isText(o OID) bool {
	return o == Text || o == Varchar || o == BPChar || o == Name || o == Char
}

func isTime(o OID) bool { return o == Timestamptz || o == Timestamp || o == Date }

func isArray(o OID) bool { return elemOf(o) != 0 }

// wider is the type of an operation on two numbers.
func wider(a, b OID) OID {
	rank := func(o OID) int {
		switch o {
		case Int2:
			return 1
		case Int4:
			return 2
		case Int8, Oid:
			return 3
		case Numeric:
			return 4
		case Float4:
			return 5
		case Float8:
			return 6
		}
		return 0
	}
	if rank(a) >= rank(b) {
		return a
	}
	return b
}
