-- transactional: false
--
-- Ids of 64 bits: those of 32 bits are used up after 2,147,483,647 rows.
--
-- A small table is rewritten in place. A large one is copied beside the requests, because a rewrite holds a lock for
-- minutes: a trigger notes the keys of rows that change, batches copy the rows, the noted rows are copied again, and
-- the copy takes the name of the table. Only the first and the last step lock the table, for a moment. They wait at
-- most 200 ms for the lock, because requests queue behind a waiting lock, and are repeated until they get it.
-- A run that was interrupted is repeated from the start. PostgreSQL 14 or later.
--
-- Two runs at the same time would copy into each other's tables, and the rows that neither has copied would be lost.
-- That needs no second person: the server continues with a statement whose client was killed. A run therefore waits
-- for the end of an earlier one.

SET statement_timeout = 0;
SET lock_timeout = '200ms';

-- Ends a run whose client was killed. Not every system can notice that.
DO $ending$ BEGIN
    PERFORM set_config('client_connection_check_interval', '2s', false);
EXCEPTION WHEN invalid_parameter_value THEN
    RAISE NOTICE 'this system does not notice that a client has ended';
END $ending$;

CREATE OR REPLACE PROCEDURE pg_temp.wait_for_earlier_run() LANGUAGE plpgsql AS $waiting$
BEGIN
    WHILE NOT pg_try_advisory_lock(hashtextextended('V07__ids_of_64_bits', 0)) LOOP
        COMMIT;
        PERFORM pg_sleep(0.2);
    END LOOP;
END
$waiting$;
CALL pg_temp.wait_for_earlier_run();

CREATE OR REPLACE FUNCTION pg_temp.change(statement text) RETURNS void LANGUAGE plpgsql AS $change$
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '200ms', true);
            EXECUTE statement;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.3 + random());
        END;
    END LOOP;
END
$change$;

-- Copies up to 20,000 of the rows that were noted; returns the number of notes.
CREATE OR REPLACE FUNCTION pg_temp.copy_noted(narrow text, wide text, noted text, keys text, names text)
RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off SET jit = off
AS $copy_noted$
DECLARE
    found bigint;
BEGIN
    EXECUTE format(
        'WITH taken AS ('
        '    DELETE FROM %3$s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %3$s LIMIT 20000)) RETURNING %4$s'
        '), present AS ('
        '    SELECT %5$s FROM %1$s WHERE (%4$s) IN (SELECT %4$s FROM taken)'
        '), gone AS ('
        '    DELETE FROM %2$s WHERE (%4$s) IN (SELECT %4$s FROM taken) AND (%4$s) NOT IN (SELECT %4$s FROM present)'
        '), written AS ('
        '    INSERT INTO %2$s (%5$s) SELECT %5$s FROM present'
        '    ON CONFLICT (%4$s) DO UPDATE SET (%5$s) = ROW(%6$s)'
        ') SELECT count(*) FROM taken',
        narrow, wide, noted, keys, names, 'excluded.' || replace(names, ', ', ', excluded.')
    ) INTO found;
    RETURN found;
END
$copy_noted$;

-- Gives the columns of a table the type bigint (or bigint[]).
CREATE OR REPLACE PROCEDURE pg_temp.widen(name text, columns text[]) LANGUAGE plpgsql AS $widen$
DECLARE
    small_bytes CONSTANT bigint := COALESCE(current_setting('migrations.small_bytes', true), '4000000');
    schema CONSTANT text := (SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = to_regclass(name));
    narrow CONSTANT text := schema || '.' || quote_ident(name);
    wide CONSTANT text := schema || '.' || quote_ident(name || '_wide');
    past CONSTANT text := schema || '.' || quote_ident(name || '_narrow');
    noted CONSTANT text := schema || '.' || quote_ident(name || '_noted');
    noting CONSTANT text := schema || '.' || quote_ident(name || '_note');
    table_id CONSTANT oid := to_regclass(name);
    is_wide boolean := NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = table_id AND attname = ANY (columns) AND atttypid IN (CAST('integer' AS regtype), CAST('integer[]' AS regtype))
    );
    widening CONSTANT text := (
        SELECT string_agg(format('ALTER COLUMN %I TYPE bigint%s', attname, CASE atttypid WHEN CAST('integer[]' AS regtype) THEN '[]' END), ', ')
        FROM pg_attribute WHERE attrelid = table_id AND attname = ANY (columns)
    );
    names CONSTANT text := (
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = table_id AND attnum > 0 AND NOT attisdropped
    );
    keys CONSTANT text := (
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY array_position(CAST(indkey AS smallint[]), attnum))
        FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indrelid = table_id AND indisprimary
    );
    wide_id oid;
    pages bigint;
    page bigint := 0;
    failures integer := 0;
    definition text;
    one record;
BEGIN
    IF NOT is_wide AND pg_table_size(table_id) < small_bytes THEN
        PERFORM pg_temp.change(format('ALTER TABLE %s %s', narrow, widening));
        RETURN;
    END IF;

    IF NOT is_wide THEN
        -- What an interrupted run left behind.
        IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = table_id AND tgname = 'note_change') THEN
            PERFORM pg_temp.change(format('DROP TRIGGER note_change ON %s', narrow));
        END IF;
        PERFORM pg_temp.change(format('DROP TABLE IF EXISTS %s, %s', wide, noted));

        -- Without WAL: after a crash of PostgreSQL, this starts over.
        EXECUTE format('CREATE UNLOGGED TABLE %s AS SELECT %s FROM %s WITH NO DATA', noted, keys, narrow);
        EXECUTE format(
            'CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $note$ BEGIN'
            '    IF TG_OP <> ''INSERT'' THEN INSERT INTO %s VALUES (%s); END IF;'
            '    IF TG_OP <> ''DELETE'' THEN INSERT INTO %s VALUES (%s); END IF;'
            '    RETURN NULL; END $note$',
            noting, noted, 'OLD.' || replace(keys, ', ', ', OLD.'), noted, 'NEW.' || replace(keys, ', ', ', NEW.')
        );
        EXECUTE format(
            'CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY EXCLUDING STATISTICS)', wide, narrow
        );
        wide_id := to_regclass(wide);
        EXECUTE format('ALTER TABLE %s %s', wide, widening);
        FOR one IN
            SELECT attname FROM pg_attribute WHERE attrelid = table_id AND attidentity <> '' AND NOT attisdropped
        LOOP
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I ADD GENERATED BY DEFAULT AS IDENTITY', wide, one.attname);
        END LOOP;
        SELECT conname INTO one FROM pg_constraint WHERE conrelid = table_id AND contype = 'p';
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I PRIMARY KEY (%s)', wide, one.conname || '_wide', keys);
        PERFORM pg_temp.change(format(
            'CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %s()',
            narrow, noting
        ));
        COMMIT;

        -- From here on every change is noted: rows beyond this page, and rows that move, are copied by their notes.
        pages := pg_relation_size(table_id) / current_setting('block_size')::bigint;
        WHILE page < pages LOOP
            EXECUTE format(
                'INSERT INTO %s (%s) SELECT %2$s FROM %3$s WHERE ctid >= $1 AND ctid < $2 ON CONFLICT DO NOTHING',
                wide, names, narrow
            ) USING CAST(format('(%s,0)', page) AS tid), CAST(format('(%s,0)', page + 250) AS tid);
            page := page + 250;
            COMMIT;
            PERFORM pg_sleep(0.005);  -- the disk is the requests' as well
        END LOOP;
        FOR one IN
            SELECT relname, indisunique, pg_get_indexdef(indexrelid) AS definition
            FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
            WHERE indrelid = table_id AND NOT indisprimary AND indisvalid
        LOOP
            EXECUTE format(
                'CREATE %s INDEX %I ON %s%s', CASE WHEN one.indisunique THEN 'UNIQUE' END, one.relname || '_wide', wide,
                substr(one.definition, position(' USING ' IN one.definition))
            );
            COMMIT;
        END LOOP;
        EXECUTE format('ANALYZE %s', wide);
        COMMIT;

        WHILE NOT is_wide LOOP
            WHILE pg_temp.copy_noted(narrow, wide, noted, keys, names) > 1000 LOOP
                COMMIT;
            END LOOP;
            COMMIT;
            BEGIN
                -- At the right moment, the rows that are noted now are few.
                SELECT string_agg(DISTINCT CAST(conrelid AS regclass)::text, ', ') INTO definition
                FROM pg_constraint WHERE contype = 'f' AND confrelid = table_id;
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', concat_ws(', ', narrow, definition));
                WHILE pg_temp.copy_noted(narrow, wide, noted, keys, names) > 0 LOOP
                END LOOP;
                IF to_regclass(wide) IS DISTINCT FROM wide_id OR to_regclass(narrow) IS DISTINCT FROM table_id THEN
                    RAISE EXCEPTION 'another run has replaced % or its copy', narrow;
                END IF;
                CALL pg_temp.swap(name, table_id, wide_id, schema);
                is_wide := true;
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                failures := failures + 1;
            END;
            COMMIT;
            IF NOT is_wide THEN
                PERFORM pg_sleep(least(0.2 * failures, 3) + random());
                COMMIT;
            END IF;
        END LOOP;
    END IF;

    -- The foreign keys hold for every new row; these look at the old ones, and lock nothing against writers.
    FOR one IN
        SELECT CAST(conrelid AS regclass) AS referencing, conname FROM pg_constraint
        WHERE contype = 'f' AND NOT convalidated AND to_regclass(narrow) IN (conrelid, confrelid)
    LOOP
        PERFORM pg_temp.change(format('ALTER TABLE %s VALIDATE CONSTRAINT %I', one.referencing, one.conname));
        COMMIT;
    END LOOP;
    IF to_regclass(past) IS NOT NULL THEN
        PERFORM pg_temp.change(format('DROP TABLE %s, %s', past, noted));
        EXECUTE format('DROP FUNCTION %s()', noting);
        COMMIT;
    END IF;
END
$widen$;

-- Gives the copy the table's name, indexes' names, sequence, foreign keys, triggers and rights. Both are locked.
CREATE OR REPLACE PROCEDURE pg_temp.swap(name text, narrow oid, wide oid, schema text) LANGUAGE plpgsql AS $swap$
DECLARE
    statements text[] := '{}';
    statement text;
    past CONSTANT text := name || '_narrow';
    one record;
BEGIN
    FOR one IN
        SELECT CAST(conrelid AS regclass) AS referencing, conname, pg_get_constraintdef(oid) AS definition, conrelid
        FROM pg_constraint WHERE contype = 'f' AND (confrelid = narrow OR conrelid = narrow)
    LOOP
        IF one.conrelid <> narrow THEN
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.referencing, one.conname);
        END IF;
        statements := statements || format(
            'ALTER TABLE %s ADD CONSTRAINT %I %s NOT VALID', one.referencing, one.conname,
            regexp_replace(one.definition, ' NOT VALID$', '')
        );
    END LOOP;
    FOR one IN
        SELECT pg_get_triggerdef(oid) AS definition FROM pg_trigger
        WHERE tgrelid = narrow AND NOT tgisinternal AND tgname <> 'note_change'
    LOOP
        statements := statements || one.definition;
    END LOOP;
    FOR one IN
        SELECT privilege_type, is_grantable,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee
        FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = narrow
    LOOP
        statements := statements || format(
            'GRANT %s ON %s.%I TO %s%s', one.privilege_type, schema, name, one.grantee,
            CASE WHEN one.is_grantable THEN ' WITH GRANT OPTION' END
        );
    END LOOP;
    SELECT pg_get_userbyid(relowner) AS owner INTO one FROM pg_class WHERE oid = narrow;
    statements := statements || format('ALTER TABLE %s.%I OWNER TO %I', schema, name, one.owner);

    EXECUTE format('ALTER TABLE %s.%I RENAME TO %I', schema, name, past);
    EXECUTE format('ALTER TABLE %s.%I RENAME TO %I', schema, name || '_wide', name);
    FOR one IN
        SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = narrow AND to_regclass(schema || '.' || quote_ident(relname || '_wide')) IS NOT NULL
    LOOP
        EXECUTE format('ALTER INDEX %s.%I RENAME TO %I', schema, one.relname, one.relname || '_narrow');
        EXECUTE format('ALTER INDEX %s.%I RENAME TO %I', schema, one.relname || '_wide', one.relname);
    END LOOP;
    FOR one IN
        SELECT CAST(pg_get_serial_sequence(format('%s.%I', schema, past), attname) AS regclass) AS old_sequence,
            pg_get_serial_sequence(format('%s.%I', schema, name), attname) AS new_sequence
        FROM pg_attribute WHERE attrelid = narrow AND attidentity <> '' AND NOT attisdropped
    LOOP
        PERFORM setval(
            CAST(one.new_sequence AS regclass), COALESCE(pg_sequence_last_value(one.old_sequence), 1),
            pg_sequence_last_value(one.old_sequence) IS NOT NULL
        );
        statements := format('ALTER SEQUENCE %s RENAME TO %I', one.new_sequence, (SELECT relname FROM pg_class WHERE oid = one.old_sequence))
            || statements;
        EXECUTE format(
            'ALTER SEQUENCE %s RENAME TO %I', one.old_sequence,
            (SELECT relname FROM pg_class WHERE oid = one.old_sequence) || '_narrow'
        );
    END LOOP;
    FOREACH statement IN ARRAY statements LOOP
        EXECUTE statement;
    END LOOP;
END
$swap$;

CALL pg_temp.widen('users', '{id}');
CALL pg_temp.widen('items', '{id, seller_id}');
CALL pg_temp.widen('moderation_results', '{id, item_id}');
CALL pg_temp.widen('submission_history', '{task_id}');
CALL pg_temp.widen('idempotency_keys', '{task_ids}');

SELECT pg_advisory_unlock(hashtextextended('V07__ids_of_64_bits', 0));
RESET client_connection_check_interval;
RESET lock_timeout;
RESET statement_timeout;
