package virtual

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
	"github.com/spooksystems/gateway/wrappers/sql/sqlrow"
)

// A payload is read into columns and written from them without a step between, since every row of every scan passes.

// appendJSON writes an item as jsonb shows it.
func appendJSON(dst []byte, it *sqlrow.Item) []byte {
	switch it.Kind {
	case sqlrow.Bool:
		return strconv.AppendBool(dst, it.Yes)
	case sqlrow.Int:
		return strconv.AppendInt(dst, it.Int, 10)
	case sqlrow.Decimal:
		if v, ok := pgsql.Number(it.Text); ok {
			return append(dst, v.NumberText()...)
		}
	case sqlrow.Text:
		return pgsql.AppendJSONString(dst, it.Text)
	case sqlrow.Bytes:
		return pgsql.AppendJSONString(dst, base64.StdEncoding.EncodeToString([]byte(it.Text)))
	case sqlrow.List, sqlrow.Map:
		open, shut := byte('['), byte(']')
		if it.Kind == sqlrow.Map {
			open, shut = '{', '}'
		}
		r := it.Items()
		dst = append(dst, open)
		for i := range it.Len {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			if it.Kind == sqlrow.Map {
				name, _ := r.Name() // it was read before
				dst = append(pgsql.AppendJSONString(dst, name), ": "...)
			}
			item, _ := r.Item()
			dst = appendJSON(dst, &item)
		}
		return append(dst, shut)
	}
	return append(dst, "null"...)
}

// valueOf gives an item as one of a column's type. False: it is none.
func valueOf(it *sqlrow.Item, o pgsql.OID) (pgsql.Value, bool) {
	if it.Kind == sqlrow.Null {
		return pgsql.Value{}, true
	}
	switch o {
	case pgsql.JSONB, pgsql.JSON:
		return pgsql.StrValue(string(appendJSON(nil, it))), true
	case pgsql.Bool:
		return pgsql.BoolValue(it.Yes), it.Kind == sqlrow.Bool
	case pgsql.Bytea:
		return pgsql.BlobValue([]byte(it.Text)), it.Kind == sqlrow.Bytes || it.Kind == sqlrow.Text
	case pgsql.Numeric, pgsql.Float8, pgsql.Float4, pgsql.Int8, pgsql.Int4, pgsql.Int2:
		switch {
		case it.Kind == sqlrow.Int && o == pgsql.Numeric:
			return pgsql.IntValue(it.Int), true
		case it.Kind == sqlrow.Int || it.Kind == sqlrow.Decimal:
			return pgsql.FromJSON([]byte(it.Digits()), o)
		}
		return pgsql.Value{}, false
	}
	switch it.Kind {
	case sqlrow.Text:
		if o == pgsql.Text {
			return pgsql.StrValue(it.Text), true
		}
		v, err := pgsql.ParseText(it.Text, o, time.UTC)
		return v, err == nil
	case sqlrow.Bytes:
		return pgsql.StrValue(it.Text), o == pgsql.Text && utf8.ValidString(it.Text)
	}
	return pgsql.StrValue(string(appendJSON(nil, it))), o == pgsql.Text
}

// decodeRow puts the columns of a payload into a row, and tells how many values have no place there.
func (t *table) decodeRow(raw []byte, row []pgsql.Value) (unshowable int, err error) {
	r, n, err := sqlrow.Open(raw)
	if err != nil {
		return 0, err
	}
	for range n {
		name, err := r.Name()
		if err != nil {
			return 0, err
		}
		it, err := r.Item()
		if err != nil {
			return 0, err
		}
		i := t.Column(name)
		if i < 0 || t.isKey(i) {
			continue
		}
		v, ok := valueOf(&it, t.Columns[i].Type)
		if !ok {
			unshowable++
			continue
		}
		row[i] = v
	}
	return unshowable, nil
}

// appendValue writes a value of a column.
func appendValue(b []byte, v pgsql.Value, o pgsql.OID) ([]byte, error) {
	if v.IsNull() {
		return sqlrow.AppendNull(b), nil
	}
	switch o {
	case pgsql.Bool:
		return sqlrow.AppendBool(b, v.Int != 0), nil
	case pgsql.Int2, pgsql.Int4, pgsql.Int8, pgsql.Numeric, pgsql.Float4, pgsql.Float8:
		if v.Kind == pgsql.Int {
			return sqlrow.AppendInt(b, v.Int), nil
		}
		if o != pgsql.Numeric && v.Kind == pgsql.Float {
			if math.IsNaN(v.Flt) || math.IsInf(v.Flt, 0) {
				return b, &pgsql.Error{Code: pgsql.OutOfRange, Message: "a register holds no infinite number"}
			}
			return sqlrow.AppendNumber(b, sqlrow.Number(strconv.FormatFloat(v.Flt, 'g', -1, 64)))
		}
		return sqlrow.AppendNumber(b, sqlrow.Number(v.NumberText()))
	case pgsql.Bytea:
		return sqlrow.AppendBytes(b, v.Str), nil
	case pgsql.JSON, pgsql.JSONB:
		d := json.NewDecoder(bytes.NewReader([]byte(v.Str)))
		d.UseNumber()
		var x any
		if err := d.Decode(&x); err != nil {
			return b, &pgsql.Error{Code: pgsql.InvalidText, Message: "invalid input syntax for type json"}
		}
		return sqlrow.AppendAny(b, x)
	case pgsql.Timestamptz:
		if t, ok := pgsql.ParseTimeText(v.Str); ok {
			return sqlrow.AppendText(b, t.Format(time.RFC3339Nano)), nil
		}
	}
	return sqlrow.AppendText(b, string(pgsql.AppendText(nil, v, o, time.UTC))), nil
}

// encodeRow writes the columns of a row for which with holds; nulls too where they are to be cleared.
func (t *table) encodeRow(row []pgsql.Value, with func(column int) bool) ([]byte, error) {
	n := 0
	for i := range row {
		if !t.isKey(i) && with(i) {
			n++
		}
	}
	b := sqlrow.AppendMap(make([]byte, 0, 64), n)
	for i := range row {
		if t.isKey(i) || !with(i) {
			continue
		}
		var err error
		if b, err = appendValue(sqlrow.AppendText(b, t.Columns[i].Name), row[i], t.Columns[i].Type); err != nil {
			return nil, err
		}
	}
	return b, nil
}
