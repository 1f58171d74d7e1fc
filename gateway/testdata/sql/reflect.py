"""SQLAlchemy over the virtual server: what it asks at connect, reflection, and rows through its expression language."""
import sys
import sqlalchemy as sa

engine = sa.create_engine(f"postgresql+psycopg2://tester@{sys.argv[1]}:{sys.argv[2]}/plant")
look = sa.inspect(engine)
assert sorted(look.get_table_names()) == ["counts", "sensors"], look.get_table_names()
assert "plant" in look.get_schema_names(), look.get_schema_names()
assert look.get_table_names(schema="plant") == ["orders"]
assert look.get_view_names() == []
assert [(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns("sensors")] == [
    ("sensor", "TEXT", False), ("site", "TEXT", False), ("value", "NUMERIC", True), ("unit", "TEXT", True), ("at", "TIMESTAMP", True)], look.get_columns("sensors")
assert look.get_pk_constraint("sensors")["constrained_columns"] == ["sensor", "site"], look.get_pk_constraint("sensors")
assert look.get_foreign_keys("sensors") == [] and look.get_check_constraints("sensors") == [] and look.get_unique_constraints("sensors") == []
assert look.get_indexes("sensors") == [], look.get_indexes("sensors")
assert look.has_table("sensors") and not look.has_table("nowhere")
meta = sa.MetaData()
sensors = sa.Table("sensors", meta, autoload_with=engine)
orders = sa.Table("orders", meta, schema="plant", autoload_with=engine)
with engine.begin() as c:
    c.execute(sensors.insert(), [{"site": "alchemy", "sensor": str(i), "value": i} for i in range(5)])
    c.execute(orders.insert(), {"id": 3, "site": "alchemy", "details": {"a": 1}})
with engine.connect() as c:
    rows = c.execute(sa.select(sensors.c.sensor, sensors.c.value).where(sensors.c.site == "alchemy", sensors.c.value > 2).order_by(sensors.c.sensor)).all()
    assert [(r[0], float(r[1])) for r in rows] == [("3", 3), ("4", 4)], rows
    joined = c.execute(sa.select(sa.func.count(), sa.func.max(orders.c.id)).select_from(sensors.join(orders, sensors.c.site == orders.c.site))).one()
    assert tuple(joined) == (5, 3), joined
from sqlalchemy.dialects.postgresql import insert
with engine.begin() as c:
    put = insert(sensors).values(site="alchemy", sensor="0", value=9)
    c.execute(put.on_conflict_do_update(index_elements=["site", "sensor"], set_={"value": put.excluded.value}))
    assert float(c.execute(sa.select(sensors.c.value).where(sensors.c.sensor == "0", sensors.c.site == "alchemy")).scalar_one()) == 9
try:
    with engine.begin() as c:
        c.execute(sensors.insert(), {"site": "alchemy", "sensor": "0", "value": 1})
    raise SystemExit("no error")
except sa.exc.IntegrityError:
    pass
print("ok")
