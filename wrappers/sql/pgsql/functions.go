package pgsql

import (
	"strconv"
	"strings"
)

// A function is one that may be called: how many arguments it takes, what literals among them are, what it returns, and
// what it is in SQLite, where the server registers those that begin with pg_.
type function struct {
	min, max int // -1: any number
	args     []OID
	ret      func(args []apart) OID
	to       string // "": the same name
	write    func(p *parser, name string, args []apart, distinct, order string)
	agg      bool
	window   bool
}

func always(o OID) func([]apart) OID { return func([]apart) OID { return o } }

// same returns the type of the first argument.
func same(args []apart) OID {
	if len(args) == 0 || args[0].typ == Untyped {
		return Text
	}
	return args[0].typ
}

func sumType(args []apart) OID {
	switch o := same(args); o {
	case Int2, Int4:
		return Int8
	case Int8:
		return Numeric
	default:
		return o
	}
}

func avgType(args []apart) OID {
	switch o := same(args); o {
	case Float4, Float8:
		return Float8
	case Interval:
		return Interval
	}
	return Numeric
}

// roundType is of round, ceil and floor: whole numbers become float8.
func roundType(args []apart) OID {
	if same(args) == Float8 || same(args) == Float4 {
		return Float8
	}
	return Numeric
}

// jsonArg writes an argument as JSON.
func jsonArg(a apart) string {
	return "json(pg_json(" + a.s + ", " + strconv.Itoa(int(a.typ)) + "))"
}

func withType(to string) func(*parser, string, []apart, string, string) {
	return func(p *parser, _ string, args []apart, distinct, order string) {
		p.emit(to, "(", distinct)
		for i, a := range args {
			if i > 0 {
				p.emit(", ")
			}
			p.emit(a.s, ", ", strconv.Itoa(int(a.typ)))
		}
		p.emit(order, ")")
	}
}

func constant(text string) func(*parser, string, []apart, string, string) {
	return func(p *parser, _ string, _ []apart, _, _ string) { p.emit(text) }
}

var (
	f8    = []OID{Float8}
	texts = []OID{Text}
)

var functions = map[string]function{
	// Aggregates.
	"count":       {min: 0, max: 1, ret: always(Int8), agg: true},
	"sum":         {min: 1, max: 1, args: f8, ret: sumType, agg: true},
	"avg":         {min: 1, max: 1, args: f8, ret: avgType, agg: true},
	"min":         {min: 1, max: 1, ret: same, agg: true},
	"max":         {min: 1, max: 1, ret: same, agg: true},
	"bool_and":    {min: 1, max: 1, args: []OID{Bool}, ret: always(Bool), to: "min", agg: true},
	"every":       {min: 1, max: 1, args: []OID{Bool}, ret: always(Bool), to: "min", agg: true},
	"bool_or":     {min: 1, max: 1, args: []OID{Bool}, ret: always(Bool), to: "max", agg: true},
	"string_agg":  {min: 2, max: 2, args: texts, ret: always(Text), to: "group_concat", agg: true},
	"array_agg":   {min: 1, max: 1, ret: func(a []apart) OID { return arrayOf(same(a)) }, write: withType("pg_array_agg"), agg: true},
	"json_agg":    {min: 1, max: 1, ret: always(JSON), write: jsonAgg, agg: true},
	"jsonb_agg":   {min: 1, max: 1, ret: always(JSONB), write: jsonAgg, agg: true},
	"stddev":      {min: 1, max: 1, args: f8, ret: avgType, to: "stddev_samp", agg: true},
	"stddev_samp": {min: 1, max: 1, args: f8, ret: avgType, agg: true},
	"stddev_pop":  {min: 1, max: 1, args: f8, ret: avgType, agg: true},
	"variance":    {min: 1, max: 1, args: f8, ret: avgType, to: "var_samp", agg: true},
	"var_samp":    {min: 1, max: 1, args: f8, ret: avgType, agg: true},
	"var_pop":     {min: 1, max: 1, args: f8, ret: avgType, agg: true},

	// Window functions.
	"row_number":   {ret: always(Int8), window: true},
	"rank":         {ret: always(Int8), window: true},
	"dense_rank":   {ret: always(Int8), window: true},
	"percent_rank": {ret: always(Float8), window: true},
	"cume_dist":    {ret: always(Float8), window: true},
	"ntile":        {min: 1, max: 1, args: []OID{Int4}, ret: always(Int4), window: true},
	"lag":          {min: 1, max: 3, ret: same, window: true},
	"lead":         {min: 1, max: 3, ret: same, window: true},
	"first_value":  {min: 1, max: 1, ret: same, window: true},
	"last_value":   {min: 1, max: 1, ret: same, window: true},
	"nth_value":    {min: 2, max: 2, ret: same, window: true},

	// Text.
	"lower":            {min: 1, max: 1, ret: always(Text)},
	"upper":            {min: 1, max: 1, ret: always(Text)},
	"initcap":          {min: 1, max: 1, ret: always(Text), to: "pg_initcap"},
	"length":           {min: 1, max: 1, ret: always(Int4)},
	"char_length":      {min: 1, max: 1, ret: always(Int4), to: "length"},
	"character_length": {min: 1, max: 1, ret: always(Int4), to: "length"},
	"octet_length":     {min: 1, max: 1, ret: always(Int4)},
	"substr":           {min: 2, max: 3, args: []OID{Text, Int4}, ret: same, to: "pg_substr"},
	"left":             {min: 2, max: 2, args: []OID{Text, Int4}, ret: always(Text), to: "pg_left"},
	"right":            {min: 2, max: 2, args: []OID{Text, Int4}, ret: always(Text), to: "pg_right"},
	"strpos":           {min: 2, max: 2, ret: always(Int4), to: "instr"},
	"replace":          {min: 3, max: 3, ret: always(Text)},
	"ltrim":            {min: 1, max: 2, ret: always(Text)},
	"rtrim":            {min: 1, max: 2, ret: always(Text)},
	"btrim":            {min: 1, max: 2, ret: always(Text), to: "trim"},
	"lpad":             {min: 2, max: 3, args: []OID{Text, Int4, Text}, ret: always(Text), to: "pg_lpad"},
	"rpad":             {min: 2, max: 3, args: []OID{Text, Int4, Text}, ret: always(Text), to: "pg_rpad"},
	"repeat":           {min: 2, max: 2, args: []OID{Text, Int4}, ret: always(Text), to: "pg_repeat"},
	"reverse":          {min: 1, max: 1, ret: always(Text), to: "pg_reverse"},
	"split_part":       {min: 3, max: 3, args: []OID{Text, Text, Int4}, ret: always(Text), to: "pg_split_part"},
	"starts_with":      {min: 2, max: 2, ret: always(Bool), to: "pg_starts_with"},
	"concat":           {min: 1, max: -1, ret: always(Text), write: withType("pg_concat")},
	"concat_ws":        {min: 2, max: -1, ret: always(Text), write: withType("pg_concat_ws")},
	"md5":              {min: 1, max: 1, ret: always(Text), to: "pg_md5"},
	"chr":              {min: 1, max: 1, args: []OID{Int4}, ret: always(Text), to: "char"},
	"ascii":            {min: 1, max: 1, ret: always(Int4), to: "unicode"},
	"to_hex":           {min: 1, max: 1, args: []OID{Int8}, ret: always(Text), to: "pg_to_hex"},
	"encode":           {min: 2, max: 2, args: []OID{Bytea, Text}, ret: always(Text), to: "pg_encode"},
	"decode":           {min: 2, max: 2, ret: always(Bytea), to: "pg_decode"},
	"quote_ident":      {min: 1, max: 1, ret: always(Text), to: "pg_quote_ident"},
	"quote_literal":    {min: 1, max: 1, ret: always(Text), to: "pg_quote_literal"},
	"regexp_replace":   {min: 3, max: 4, ret: always(Text), to: "pg_regexp_replace"},
	"translate":        {min: 3, max: 3, ret: always(Text), to: "pg_translate"},

	// Numbers.
	"abs":     {min: 1, max: 1, args: f8, ret: same},
	"round":   {min: 1, max: 2, args: []OID{Float8, Int4}, ret: roundType, to: "pg_round"},
	"trunc":   {min: 1, max: 2, args: []OID{Float8, Int4}, ret: roundType, to: "pg_trunc"},
	"ceil":    {min: 1, max: 1, args: f8, ret: roundType},
	"ceiling": {min: 1, max: 1, args: f8, ret: roundType, to: "ceil"},
	"floor":   {min: 1, max: 1, args: f8, ret: roundType},
	"mod":     {min: 2, max: 2, args: []OID{Int8}, ret: same, to: "pg_mod"},
	"div":     {min: 2, max: 2, args: f8, ret: always(Numeric), to: "pg_idiv"},
	"power":   {min: 2, max: 2, args: f8, ret: always(Float8), to: "pow"},
	"pow":     {min: 2, max: 2, args: f8, ret: always(Float8)},
	"sqrt":    {min: 1, max: 1, args: f8, ret: always(Float8)},
	"exp":     {min: 1, max: 1, args: f8, ret: always(Float8)},
	"ln":      {min: 1, max: 1, args: f8, ret: always(Float8)},
	"log":     {min: 1, max: 1, args: f8, ret: always(Float8), to: "log10"},
	"sign":    {min: 1, max: 1, args: f8, ret: same},
	"sin":     {min: 1, max: 1, args: f8, ret: always(Float8)},
	"cos":     {min: 1, max: 1, args: f8, ret: always(Float8)},
	"tan":     {min: 1, max: 1, args: f8, ret: always(Float8)},
	"atan2":   {min: 2, max: 2, args: f8, ret: always(Float8)},
	"radians": {min: 1, max: 1, args: f8, ret: always(Float8)},
	"degrees": {min: 1, max: 1, args: f8, ret: always(Float8)},
	"pi":      {ret: always(Float8)},
	"random":  {ret: always(Float8), to: "pg_random"},

	// Times.
	"now":                   {ret: always(Timestamptz), to: "pg_now"},
	"transaction_timestamp": {ret: always(Timestamptz), to: "pg_now"},
	"statement_timestamp":   {ret: always(Timestamptz), to: "pg_now"},
	"clock_timestamp":       {ret: always(Timestamptz), to: "pg_clock"},
	"to_timestamp":          {min: 1, max: 1, args: f8, ret: always(Timestamptz), to: "pg_to_timestamp"},
	"date_trunc":            {min: 2, max: 2, args: []OID{Text, Timestamptz}, ret: func(a []apart) OID { return timeOr(a[1].typ) }, to: "pg_date_trunc"},
	"date_part": {min: 2, max: 2, args: []OID{Text, Timestamptz}, ret: always(Float8), write: func(p *parser, _ string, a []apart, _, _ string) {
		p.emit("pg_extract(", a[0].s, ", ", a[1].s, ", ", strconv.Itoa(int(a[1].typ)), ")")
	}},
	"age": {min: 1, max: 2, args: []OID{Timestamptz}, ret: always(Interval), to: "pg_age"},

	// JSON.
	"to_json":                  {min: 1, max: 1, ret: always(JSON), write: withType("pg_json")},
	"to_jsonb":                 {min: 1, max: 1, ret: always(JSONB), write: withType("pg_json")},
	"json_build_object":        {min: 0, max: -1, ret: always(JSON), write: jsonObject},
	"jsonb_build_object":       {min: 0, max: -1, ret: always(JSONB), write: jsonObject},
	"json_build_array":         {min: 0, max: -1, ret: always(JSON), write: jsonArray},
	"jsonb_build_array":        {min: 0, max: -1, ret: always(JSONB), write: jsonArray},
	"json_array_length":        {min: 1, max: 1, args: []OID{JSON}, ret: always(Int4), to: "json_array_length"},
	"jsonb_array_length":       {min: 1, max: 1, args: []OID{JSONB}, ret: always(Int4), to: "json_array_length"},
	"json_typeof":              {min: 1, max: 1, args: []OID{JSON}, ret: always(Text), to: "pg_json_typeof"},
	"jsonb_typeof":             {min: 1, max: 1, args: []OID{JSONB}, ret: always(Text), to: "pg_json_typeof"},
	"json_extract_path_text":   {min: 2, max: -1, args: []OID{JSON, Text}, ret: always(Text), to: "pg_json_path_text"},
	"jsonb_extract_path_text":  {min: 2, max: -1, args: []OID{JSONB, Text}, ret: always(Text), to: "pg_json_path_text"},
	"jsonb_strip_nulls":        {min: 1, max: 1, args: []OID{JSONB}, ret: always(JSONB), to: "pg_json_strip_nulls"},
	"jsonb_pretty":             {min: 1, max: 1, args: []OID{JSONB}, ret: always(Text), to: "pg_json_pretty"},
	"gen_random_uuid":          {ret: always(UUID), to: "pg_uuid"},
	"array_to_string":          {min: 2, max: 3, args: []OID{TextArray, Text}, ret: always(Text), to: "pg_array_to_string"},
	"string_to_array":          {min: 2, max: 2, ret: always(TextArray), to: "pg_string_to_array"},
	"array_length":             {min: 2, max: 2, args: []OID{TextArray, Int4}, ret: always(Int4), to: "pg_array_length"},
	"array_upper":              {min: 2, max: 2, args: []OID{TextArray, Int4}, ret: always(Int4), to: "pg_array_length"},
	"array_lower":              {min: 2, max: 2, args: []OID{TextArray, Int4}, ret: always(Int4), to: "pg_array_lower"},
	"cardinality":              {min: 1, max: 1, args: []OID{TextArray}, ret: always(Int4), write: func(p *parser, _ string, a []apart, _, _ string) { p.emit("pg_cardinality(", a[0].s, ")") }},
	"array_position":           {min: 2, max: 2, args: []OID{TextArray, Text}, ret: always(Int4), to: "pg_array_position"},
	"pg_typeof":                {min: 1, max: 1, ret: always(Text), write: func(p *parser, _ string, a []apart, _, _ string) { p.emit(quoteText(TypeOf(a[0].typ).SQL)) }},
	"version":                  {ret: always(Text), to: "pg_version"},
	"current_database":         {ret: always(Name), to: "pg_database"},
	"current_schema":           {ret: always(Name), to: "pg_schema"},
	"current_schemas":          {min: 1, max: 1, args: []OID{Bool}, ret: always(NameArray), to: "pg_schemas"},
	"current_setting":          {min: 1, max: 2, args: []OID{Text, Bool}, ret: always(Text), to: "pg_setting"},
	"set_config":               {min: 3, max: 3, args: []OID{Text, Text, Bool}, ret: always(Text), to: "pg_set_config"},
	"pg_backend_pid":           {ret: always(Int4), to: "pg_pid"},
	"pg_is_in_recovery":        {ret: always(Bool), write: constant("0")},
	"pg_is_in_backup":          {ret: always(Bool), write: constant("0")},
	"txid_current":             {ret: always(Int8), to: "pg_txid"},
	"pg_current_xact_id":       {ret: always(Int8), to: "pg_txid"},
	"pg_postmaster_start_time": {ret: always(Timestamptz), to: "pg_start_time"},
	"inet_server_addr":         {ret: always(Text), write: constant("NULL")},
	"inet_server_port":         {ret: always(Int4), write: constant("NULL")},
	"inet_client_addr":         {ret: always(Text), write: constant("NULL")},
	"inet_client_port":         {ret: always(Int4), write: constant("NULL")},
	"pg_sleep":                 {min: 1, max: 1, args: f8, ret: always(Text), to: "pg_sleep"},
	"pg_notify":                {min: 2, max: 2, ret: always(Text), to: "pg_notify"},
	"pg_cancel_backend":        {min: 1, max: 1, args: []OID{Int4}, ret: always(Bool), to: "pg_cancel"},
	"pg_listening_channels":    {ret: always(Text), write: constant("NULL")},
	"pg_jit_available":         {ret: always(Bool), write: constant("0")},

	// What psql and drivers ask the catalogue.
	"pg_table_is_visible":                {min: 1, max: 1, args: []OID{Oid}, ret: always(Bool), to: "pg_table_visible"},
	"pg_type_is_visible":                 {min: 1, max: 1, args: []OID{Oid}, ret: always(Bool), write: constant("1")},
	"pg_function_is_visible":             {min: 1, max: 1, args: []OID{Oid}, ret: always(Bool), write: constant("1")},
	"pg_opclass_is_visible":              {min: 1, max: 1, args: []OID{Oid}, ret: always(Bool), write: constant("1")},
	"pg_collation_is_visible":            {min: 1, max: 1, args: []OID{Oid}, ret: always(Bool), write: constant("1")},
	"pg_get_userbyid":                    {min: 1, max: 1, args: []OID{Oid}, ret: always(Name), to: "pg_userbyid"},
	"pg_encoding_to_char":                {min: 1, max: 1, args: []OID{Int4}, ret: always(Name), write: constant("'UTF8'")},
	"pg_client_encoding":                 {ret: always(Name), write: constant("'UTF8'")},
	"getdatabaseencoding":                {ret: always(Name), write: constant("'UTF8'")},
	"format_type":                        {min: 2, max: 2, args: []OID{Oid, Int4}, ret: always(Text), to: "pg_format_type"},
	"pg_get_expr":                        {min: 2, max: 3, args: []OID{Text, Oid, Bool}, ret: always(Text), write: constant("NULL")},
	"pg_get_indexdef":                    {min: 1, max: 3, args: []OID{Oid, Int4, Bool}, ret: always(Text), to: "pg_indexdef"},
	"pg_get_constraintdef":               {min: 1, max: 2, args: []OID{Oid, Bool}, ret: always(Text), to: "pg_constraintdef"},
	"pg_get_viewdef":                     {min: 1, max: 2, args: []OID{Oid, Bool}, ret: always(Text), write: constant("NULL")},
	"pg_get_functiondef":                 {min: 1, max: 1, args: []OID{Oid}, ret: always(Text), write: constant("NULL")},
	"pg_get_function_result":             {min: 1, max: 1, args: []OID{Oid}, ret: always(Text), write: constant("NULL")},
	"pg_get_function_arguments":          {min: 1, max: 1, args: []OID{Oid}, ret: always(Text), write: constant("NULL")},
	"pg_get_function_identity_arguments": {min: 1, max: 1, args: []OID{Oid}, ret: always(Text), write: constant("NULL")},
	"pg_get_triggerdef":                  {min: 1, max: 2, args: []OID{Oid, Bool}, ret: always(Text), write: constant("NULL")},
	"pg_get_ruledef":                     {min: 1, max: 2, args: []OID{Oid, Bool}, ret: always(Text), write: constant("NULL")},
	"pg_get_partkeydef":                  {min: 1, max: 1, args: []OID{Oid}, ret: always(Text), write: constant("NULL")},
	"pg_get_serial_sequence":             {min: 2, max: 2, ret: always(Text), write: constant("NULL")},
	"pg_get_statisticsobjdef_columns":    {min: 1, max: 1, args: []OID{Oid}, ret: always(Text), write: constant("NULL")},
	"pg_relation_is_publishable":         {min: 1, max: 1, args: []OID{Oid}, ret: always(Bool), write: constant("0")},
	"pg_relation_size":                   {min: 1, max: 2, args: []OID{Oid, Text}, ret: always(Int8), write: constant("0")},
	"pg_total_relation_size":             {min: 1, max: 1, args: []OID{Oid}, ret: always(Int8), write: constant("0")},
	"pg_table_size":                      {min: 1, max: 1, args: []OID{Oid}, ret: always(Int8), write: constant("0")},
	"pg_indexes_size":                    {min: 1, max: 1, args: []OID{Oid}, ret: always(Int8), write: constant("0")},
	"pg_database_size":                   {min: 1, max: 1, ret: always(Int8), write: constant("0")},
	"pg_size_pretty":                     {min: 1, max: 1, args: []OID{Int8}, ret: always(Text), to: "pg_size_pretty"},
	"pg_tablespace_size":                 {min: 1, max: 1, ret: always(Int8), write: constant("0")},
	"pg_tablespace_location":             {min: 1, max: 1, args: []OID{Oid}, ret: always(Text), write: constant("''")},
	"pg_my_temp_schema":                  {ret: always(Oid), write: constant("0")},
	"pg_is_other_temp_schema":            {min: 1, max: 1, args: []OID{Oid}, ret: always(Bool), write: constant("0")},
	"obj_description":                    {min: 1, max: 2, args: []OID{Oid, Text}, ret: always(Text), write: constant("NULL")},
	"col_description":                    {min: 2, max: 2, args: []OID{Oid, Int4}, ret: always(Text), write: constant("NULL")},
	"shobj_description":                  {min: 2, max: 2, args: []OID{Oid, Text}, ret: always(Text), write: constant("NULL")},
	"has_table_privilege":                {min: 2, max: 3, ret: always(Bool), write: constant("1")},
	"has_schema_privilege":               {min: 2, max: 3, ret: always(Bool), write: constant("1")},
	"has_database_privilege":             {min: 2, max: 3, ret: always(Bool), write: constant("1")},
	"has_column_privilege":               {min: 3, max: 4, ret: always(Bool), write: constant("1")},
	"has_any_column_privilege":           {min: 2, max: 3, ret: always(Bool), write: constant("1")},
	"has_function_privilege":             {min: 2, max: 3, ret: always(Bool), write: constant("1")},
	"has_sequence_privilege":             {min: 2, max: 3, ret: always(Bool), write: constant("1")},
	"pg_has_role":                        {min: 2, max: 3, ret: always(Bool), write: constant("1")},
	"to_regclass":                        {min: 1, max: 1, ret: always(Regclass), to: "pg_to_regclass"},
	"pg_char_to_encoding":                {min: 1, max: 1, ret: always(Int4), write: constant("6")},
	"row_security_active":                {min: 1, max: 1, ret: always(Bool), write: constant("0")},
	"_pg_char_max_length":                {min: 2, max: 2, args: []OID{Oid, Int4}, ret: always(Int4), write: constant("NULL")},
}

func timeOr(o OID) OID {
	if isTime(o) && o != Date {
		return o
	}
	return Timestamptz
}

func jsonAgg(p *parser, _ string, args []apart, distinct, order string) {
	p.emit("json_group_array(", distinct, jsonArg(args[0]), order, ")")
}

// asJSONB has what follows written as jsonb writes it, and gives what is to stand behind.
func asJSONB(p *parser, name string) string {
	if !strings.HasPrefix(name, "jsonb_") {
		return ")"
	}
	p.emit("pg_jsonb(")
	return "))"
}

func jsonObject(p *parser, name string, args []apart, _, _ string) {
	shut := asJSONB(p, name)
	p.emit("json_object(")
	for i, a := range args {
		if i > 0 {
			p.emit(", ")
		}
		if i%2 == 0 {
			p.emit("pg_cast(", a.s, castArgs(a.typ, Text))
		} else {
			p.emit(jsonArg(a))
		}
	}
	p.emit(shut)
}

func jsonArray(p *parser, name string, args []apart, _, _ string) {
	shut := asJSONB(p, name)
	p.emit("json_array(")
	for i, a := range args {
		if i > 0 {
			p.emit(", ")
		}
		p.emit(jsonArg(a))
	}
	p.emit(shut)
}
