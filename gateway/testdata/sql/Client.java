import java.sql.*;
import java.util.*;

/** What pgjdbc asks of a server: metadata, prepared statements (by name from the fifth on), batches, cursors, errors by state. */
public class Client {
    static void check(Object got, Object want) {
        if (!Objects.equals(got, want)) throw new AssertionError("got " + got + ", want " + want);
    }

    static List<String> read(ResultSet r, String... columns) throws SQLException {
        List<String> all = new ArrayList<>();
        while (r.next()) {
            List<String> row = new ArrayList<>();
            for (String c : columns) row.add(r.getString(c));
            all.add(String.join(" ", row));
        }
        r.close();
        return all;
    }

    static void fails(Connection c, String state, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.execute(sql);
        } catch (SQLException e) {
            check(e.getSQLState(), state);
            return;
        }
        throw new AssertionError(sql + ": no error");
    }

    public static void main(String[] args) throws Exception {
        String url = "jdbc:postgresql://" + args[0] + ":" + args[1] + "/plant?user=tester";
        try (Connection c = DriverManager.getConnection(url)) {
            DatabaseMetaData m = c.getMetaData();
            check(m.getDatabaseMajorVersion(), 15);
            check(read(m.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE"),
                List.of("public counts TABLE", "public sensors TABLE"));
            check(read(m.getTables(null, null, "ord%", new String[] {"TABLE"}), "TABLE_SCHEM", "TABLE_NAME"), List.of("plant orders"));
            check(read(m.getColumns(null, "public", "sensors", null), "COLUMN_NAME", "TYPE_NAME", "IS_NULLABLE", "ORDINAL_POSITION"),
                List.of("sensor text NO 1", "site text NO 2", "value numeric YES 3", "unit text YES 4", "at timestamptz YES 5"));
            check(read(m.getColumns(null, "plant", "orders", "id"), "COLUMN_NAME", "TYPE_NAME"), List.of("id int8"));
            check(read(m.getPrimaryKeys(null, "public", "sensors"), "COLUMN_NAME", "KEY_SEQ", "PK_NAME"), List.of("sensor 1 sensors_pkey", "site 2 sensors_pkey"));
            check(read(m.getIndexInfo(null, "public", "sensors", true, false), "INDEX_NAME", "COLUMN_NAME", "ORDINAL_POSITION"), List.of("sensors_pkey sensor 1", "sensors_pkey site 2"));
            check(read(m.getImportedKeys(null, "public", "sensors"), "FKCOLUMN_NAME"), List.of());
            check(read(m.getSchemas(), "TABLE_SCHEM").containsAll(List.of("information_schema", "pg_catalog", "plant", "public")), true);
            check(read(m.getCatalogs(), "TABLE_CAT"), List.of("plant"));
            check(read(m.getTypeInfo(), "TYPE_NAME").contains("numeric"), true);

            try (PreparedStatement p = c.prepareStatement("INSERT INTO sensors (site, sensor, value, at) VALUES (?, ?, ?, ?)")) {
                for (int i = 0; i < 20; i++) {
                    p.setString(1, "jdbc");
                    p.setString(2, "s" + i);
                    p.setBigDecimal(3, new java.math.BigDecimal(i + ".5"));
                    p.setTimestamp(4, Timestamp.from(java.time.Instant.parse("2026-01-31T12:00:00Z")));
                    p.addBatch();
                }
                check(Arrays.stream(p.executeBatch()).sum(), 20);
            }
            try (PreparedStatement p = c.prepareStatement("SELECT value, at FROM sensors WHERE site = ? AND sensor = ?")) {
                for (int i = 0; i < 10; i++) {
                    p.setString(1, "jdbc");
                    p.setString(2, "s" + i);
                    try (ResultSet r = p.executeQuery()) {
                        check(r.next(), true);
                        check(r.getBigDecimal(1), new java.math.BigDecimal(i + ".5"));
                        check(r.getTimestamp(2).toInstant().toString(), "2026-01-31T12:00:00Z");
                        check(r.getMetaData().getColumnTypeName(1), "numeric");
                        check(r.next(), false);
                    }
                }
            }
            try (PreparedStatement p = c.prepareStatement("INSERT INTO plant.orders (id, state, urgent, scan, details) VALUES (?, ?, ?, ?, ?::jsonb)")) {
                p.setLong(1, 42);
                p.setString(2, "new");
                p.setBoolean(3, true);
                p.setBytes(4, new byte[] {0, -1});
                p.setString(5, "{\"a\": 1}");
                check(p.executeUpdate(), 1);
            }
            try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT * FROM plant.orders")) {
                check(r.next(), true);
                check(r.getLong("id"), 42L);
                check(r.getBoolean("urgent"), true);
                check(Arrays.toString(r.getBytes("scan")), "[0, -1]");
                check(r.getString("details"), "{\"a\": 1}");
                check(r.getString("site"), null);
            }
            c.setAutoCommit(false);
            try (Statement s = c.createStatement()) {
                s.setFetchSize(3);
                int n = 0;
                try (ResultSet r = s.executeQuery("SELECT sensor FROM sensors WHERE site = 'jdbc'")) {
                    while (r.next()) n++;
                }
                check(n, 20);
                Savepoint before = c.setSavepoint();
                check(s.executeUpdate("DELETE FROM sensors WHERE site = 'jdbc'"), 20);
                c.rollback(before);
                check(s.executeUpdate("UPDATE sensors SET value = value + 1 WHERE site = 'jdbc'"), 20);
            }
            c.rollback();
            c.setAutoCommit(true);
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            check(c.getTransactionIsolation(), Connection.TRANSACTION_SERIALIZABLE);
            try (PreparedStatement p = c.prepareStatement("INSERT INTO sensors (site, sensor, value) VALUES (?, ?, 1)", Statement.RETURN_GENERATED_KEYS)) {
                p.setString(1, "jdbc");
                p.setString(2, "key");
                p.executeUpdate();
                try (ResultSet r = p.getGeneratedKeys()) {
                    check(r.next(), true);
                    check(r.getString("sensor"), "key");
                }
            }
            fails(c, "42P01", "SELECT * FROM nowhere");
            fails(c, "23505", "INSERT INTO sensors (site, sensor, value) VALUES ('jdbc', 'key', 1)");
            fails(c, "0A000", "CREATE TABLE t (a int)");
            check(c.isValid(5), true);
        }
        System.out.println("ok");
    }
}
