# Promise (K1-K3, S3, AC-17): many hosts take, settle, refund, sweep and refill the same balances at once, in any order of rows: nothing
# is taken twice or lost, no balance goes below zero, nobody deadlocks, and the ledger adds up.
use strict;
use warnings;
use Billing::Conservation qw(credits_astray);
use Billing::Database;
use Test::More;

my ($hosts, $accounts, $rounds) = (12, 3, 60);
my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', quotas => {}, credits => { a => {}, b => {} },
    plans => { free => { credits => { a => 3000, b => 1000 } } } });
$db->psql("SELECT billing.ensure_accounts(ARRAY(SELECT 'x' || g FROM generate_series(1, $accounts) g))");

# Ten at once of one unit each, from nine units: nine get theirs.
sub at_once {
    my ($n, $work) = @_;
    pipe my $gate, my $open;
    my @children = map {
        my $host = $_;
        pipe my $from, my $to;
        my $pid = fork // die;
        if (!$pid) {
            close $open;
            my $d = $db->dbi;
            readline $gate;
            my $said = eval { $work->($d, $host) } // "error $@";
            print {$to} $said;
            close $to;
            POSIX::_exit(0);
        }
        close $to;
        [$pid, $from];
    } 1 .. $n;
    close $gate;
    close $open;
    return map { my $said = do { local $/; readline $_->[1] }; waitpid $_->[0], 0; $said } @children;
}
require POSIX;
$db->psql(q{SELECT billing.ensure_accounts('{ten}'); SELECT billing.adjust_credits('ten', 'a', -2991, 'few', 'test')});
my @told = at_once(10, sub {
    my ($d, $host) = @_;
    return $db->until_unlocked($d, sub { ($d->selectrow_array(q{SELECT billing.deduct_credits('ten', 'a', 1, $1) ->> 'success'}, undef, "h$host"))[0] });
});
is join(' ', sort @told), join(' ', 'false', ('true') x 9), 'AC-17: of ten concurrent deductions from nine units nine succeed';
is $db->psql(q{SELECT remaining || '/' || used FROM billing.credit_balances b JOIN billing.accounts a ON a.id = account_id
    WHERE external_id = 'ten' AND credit_no = 0}), '0/9', 'AC-17: and they sum exactly';

my @errors = grep { $_ } at_once($hosts, sub {
    my ($d, $host) = @_;
    srand $host;
    my ($error, %mine) = ('');
    my $call = sub { my ($sql, @bind) = @_; return $db->until_unlocked($d, sub { $d->selectall_arrayref($sql, { Slice => {} }, @bind) }) || do { $error .= $@; [] } };
    for my $round (1 .. $rounds) {
        my @ask;
        for my $group (1 .. 1 + int rand 8) {
            my ($account, $name) = (1 + int rand $accounts, "$host-$round-$group");
            push @ask, map { [$group, $name, $account, $_, 1 + int rand 5] } rand() < 0.3 ? (0, 1) : int rand 2;
        }
        my @c = map { my $i = $_; [map { $_->[$i] } @ask] } 0 .. 4;
        my $got = $call->('SELECT * FROM billing.credits_take($1, $2, $3, $4, $5, $6, $7) ORDER BY ord', @c, [(60) x @ask], [(undef) x @ask]);
        for my $i (0 .. $#$got) {
            $mine{ join '/', @{ $ask[$i] }[1, 2, 3] } = $got->[$i]{kept} if $got->[$i]{kept};
            $error .= "not all or nothing\n" if $got->[$i]{kept} != 0 && $got->[$i]{kept} != $ask[$i][4];
        }
        my @settle = map { [split('/', $_), (undef, 0, 1, $mine{$_} + 1)[int rand 4]] } grep { rand() < 0.6 } keys %mine;
        next if !@settle;
        delete @mine{ map { join '/', @$_[0 .. 2] } @settle };
        my @s = map { my $i = $_; [map { $_->[$i] } @settle] } 0 .. 3;
        for (1 .. 1 + int rand 2) {    # whose answer was lost asks again
            my @late = @{ $call->('SELECT ord, late FROM billing.credits_settle($1, $2, $3, $4)', @s) };
            my @of = map { my $i = $_; [map { $s[$i][$_->{ord} - 1] } @late] } 0 .. 2;
            $call->('SELECT billing.credits_late($1, $2, $3, $4)', @of, [map { $_->{late} } @late]) if @late;
        }
        if ($round % 10 == 0) {
            $call->(q{UPDATE billing.credit_holds SET expires_at = now() - interval '1 second' WHERE ctid IN (SELECT ctid FROM billing.credit_holds LIMIT 5 FOR UPDATE SKIP LOCKED) RETURNING 1});
            $call->('SELECT billing.credits_sweep(10)');
            $call->(q{SELECT billing.grant_credits('x1', 'b', 5, $1, 'test')}, "g$host-$round");
        }
    }
    return $error;
});
is join('', @errors), '', 'nobody is refused for another reason, and nobody deadlocks';
is_deeply [credits_astray($db->dbi)], [], 'K2: the ledger adds up to the balances, and what was used to what was taken';
cmp_ok $db->psql('SELECT min(remaining) FROM billing.credit_balances'), '>=', 0, 'K1: none is below zero';
is $db->psql(q{SELECT count(*) FROM (SELECT account_id, split_part(idem_key, ':', 2) AS name, credit_no, count(*) FILTER (WHERE idem_key LIKE 'take:%') AS takes,
    count(*) FILTER (WHERE idem_key LIKE 'back:%') AS backs, coalesce(sum(quantity), 0) AS net FROM billing.credit_ledger
    WHERE idem_key LIKE 'take:%' OR idem_key LIKE 'back:%' GROUP BY 1, 2, 3) x WHERE takes > 1 OR backs > 1 OR net > 0}), 0, 'K3: at most one taking and one return for each name';
cmp_ok $db->psql(q{SELECT count(*) FROM billing.credit_ledger WHERE idem_key LIKE 'back:%'}), '>', 50, 'of which there were many';
done_testing;
