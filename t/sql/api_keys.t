# Promise (G2, S2, S4): an API key is found only while it is good, in the same look as its account's stamp; whatever changes that raises
# the stamp and is audited; a revoked key stays revoked; workers may look keys up and nothing else.
use strict;
use warnings;
use Test::More;
use Billing::Database;
use Digest::SHA qw(sha256_hex);
use JSON::PP;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', plans => { free => {} } });
my $d = $db->dbi;
$d->do(q{SELECT billing.ensure_accounts('{a,b}')});
my $count = 0;
sub name { 'bk_aaaaaaaaa' . ('a' .. 'z')[$_[0]] }

sub create {
    my ($account, %o) = @_;
    my $n = $count++;
    my $t = $d->selectrow_array('SELECT billing.api_key_create($1, $2, $3, $4, $5, $6, $7)', undef, $account, name($n), sha256_hex($n), $o{name},
        $o{expires}, $o{make} ? 't' : 'f', 'test');
    return $t && ($n, decode_json($t));
}
sub find { $d->selectall_arrayref('SELECT * FROM billing.api_keys_find($1) ORDER BY digest', { Slice => {} }, [map { sha256_hex($_) } @_]) }
sub stamp { $d->selectrow_array('SELECT stamp FROM billing.snapshots($1, false)', undef, [$_[0]]) }
sub dirty { $d->selectrow_array('SELECT count(*) FROM billing.snapshot_dirty') }
sub clean { $d->do('DELETE FROM billing.snapshot_dirty') }
sub change { my $sql = shift; clean(); my $was = stamp('a'); $d->do($sql, undef, @_); return (stamp('a') - $was, dirty()) }

my ($n, $key) = create('a', name => 'ci');
is_deeply { %$key{qw(prefix account name state expires_at revoked_at)} },
    { prefix => name($n), account => 'a', name => 'ci', state => 'good', expires_at => undef, revoked_at => undef }, 'made';
is_deeply find($n), [{ digest => sha256_hex($n), account => 'a', stamp => stamp('a'), expires => undef }], 'found, with its account\'s stamp';
is_deeply find('other', ''), [], 'others are not';
is_deeply [map { $_->{digest} } @{ find($n, 'other', $n) }], [sha256_hex($n), sha256_hex($n)], 'several at once, twice too';
is_deeply $d->selectall_arrayref(q{SELECT * FROM billing.api_keys_find('{}')}), [], 'none';
is create('nobody'), undef, 'no account, no key';
my ($m) = create('new', make => 1);
is find($m)->[0]{account}, 'new', 'unless it is to be made';
ok !eval { create('a b', make => 1); 1 }, 'an id that is none is refused';
ok !eval { create('a', expires => '2001-01-01'); 1 }, 'so is a key of yesterday';
ok !eval { create('a', expires => 'infinity'); 1 }, 'and one that ends at no time';
ok !eval { $d->do('INSERT INTO billing.api_keys (account_id, prefix, sha256) SELECT account_id, $1, sha256 FROM billing.api_keys LIMIT 1', undef, name(20)); 1 },
    'a digest is there once';
my ($ends) = create('a', expires => '2100-01-01T00:00:00Z');
is find($ends)->[0]{expires}, 4102444800, 'when it ends';

is join(' ', change('UPDATE billing.api_keys SET name = $1 WHERE prefix = $2', 'other', name($n))), '0 0', 'a name changes nothing for hosts';
is join(' ', change('UPDATE billing.api_keys SET expires_at = $1 WHERE prefix = $2', '2100-01-01', name($n))), '1 1', 'another end does';
is join(' ', change('UPDATE billing.api_keys SET expires_at = expires_at')), '0 0', 'the same once more does not';
is join(' ', change('SELECT billing.api_key_revoke($1, $2)', name($n), 'test')), '1 1', 'revoking does';
is_deeply find($n), [], 'a revoked key is not found';
is join(' ', change('SELECT billing.api_key_revoke($1, $2)', name($n), 'test')), '0 0', 'once more does not';
is decode_json($d->selectrow_array('SELECT billing.api_key_revoke($1, $2)', undef, name($n), 'test'))->{state}, 'revoked', 'and says that it is';
is $d->selectrow_array(q{SELECT billing.api_key_revoke('bk_zzzzzzzzzz', 'test')}), undef, 'NULL for one that is not there';
is join(' ', change('DELETE FROM billing.api_keys WHERE prefix = $1', name($ends))), '1 1', 'deleting does';
is_deeply find($ends), [], 'a deleted key is not found';
for my $statement ('SET revoked_at = NULL', 'SET revoked_at = now()', "SET sha256 = sha256('x')", 'SET account_id = 2', "SET prefix = 'bk_bbbbbbbbbb'") {
    ok !eval { $d->do("UPDATE billing.api_keys $statement WHERE prefix = '@{[name($n)]}'"); 1 }, "refused: $statement";
}
ok !eval { $d->do('TRUNCATE billing.api_keys'); 1 }, 'TRUNCATE is refused: no host would hear of it';
my ($brief) = create('a', expires => $d->selectrow_array(q{SELECT (clock_timestamp() + interval '2 s')::timestamptz(0)}));
my $until = time + 10;
select undef, undef, undef, 0.05 while @{ find($brief) } && time < $until;
is_deeply find($brief), [], 'a key ends by itself';
my ($of_b) = create('b');
$d->do(q{UPDATE billing.accounts SET deleted_at = now() WHERE external_id = 'b'});
is_deeply find($of_b), [], 'a key of a deleted account is not found';

is_deeply $d->selectcol_arrayref(q{SELECT l.action || ' ' || l.actor FROM billing.audit_log l JOIN billing.accounts a ON a.id = l.account_id
    WHERE a.external_id = 'a' ORDER BY l.id}), ['key.create test', 'key.create test', 'key.change postgres', 'key.change postgres', 'key.revoke test',
    'key.delete postgres', 'key.create test'], 'all audited';
is $d->selectrow_array(q{SELECT count(*) FROM billing.audit_log WHERE coalesce(before::text, '') || coalesce(after::text, '') ~ 'sha256'}), 0, 'without the digest';
is_deeply [map { "$_->{prefix} $_->{state}" } @{ decode_json($d->selectrow_array(q{SELECT billing.api_key_list('a')})) }],
    [name($n) . ' revoked', name($brief) . ' expired'], 'listed';
is scalar(@{ decode_json($d->selectrow_array('SELECT billing.api_key_list(NULL)')) }), 4, 'of all accounts';

$db->psql("CREATE ROLE $_ LOGIN" . ($_ eq 'stranger' ? '' : " IN ROLE billing_$_")) for qw(gate jobs stranger);
my %may = (gate => 1, jobs => 1);
for my $role (qw(gate jobs stranger)) {
    my $as = $db->dbi(user => $role);
    is !!eval { $as->do(q{SELECT * FROM billing.api_keys_find('{x}')}); 1 } || $@ !~ /permission/, !!$may{$role}, "$role: looking up";
    for my $call (q{SELECT billing.api_key_create('a', 'bk_cccccccccc', repeat('0', 64), NULL, NULL, false, 'me')}, q{SELECT billing.api_key_revoke('x', 'me')},
        'SELECT billing.api_key_list(NULL)', 'SELECT * FROM billing.api_keys') {
        ok !eval { $as->do($call); 1 }, "$role may not: $call";
        is $as->state, '42501', 'for want of privilege';
    }
}
is $db->psql(q{SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'billing'::regnamespace AND proname LIKE 'api_key%' AND NOT
    (prosecdef AND coalesce(proconfig::text LIKE '%search_path=billing, pg_temp%', false))}), '', 'every function pins search_path';
$d->do('SET enable_seqscan = on');
$d->do(q{INSERT INTO billing.api_keys (account_id, prefix, sha256) SELECT 1, 'bk_' || translate(lpad(i::text, 10, '0'), '0123456789', 'klmnopqrst'), sha256(('many ' || i)::bytea)
    FROM generate_series(1, 20000) i});
my $began = $d->selectrow_array('SELECT extract(epoch FROM clock_timestamp())');
find(map { "none $_" } 1 .. 256) for 1 .. 10;
my $took = $d->selectrow_array('SELECT extract(epoch FROM clock_timestamp())') - $began;
cmp_ok $took, '<', 2, sprintf('2560 unknown keys among 20000 take %.3f s: by index', $took);
done_testing;
