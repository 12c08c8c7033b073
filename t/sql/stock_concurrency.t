# Promise (G11): many hosts reserve, settle, remove and sweep at once, in any order of rows: never more than the limit, nothing counted
# twice or lost, nobody deadlocks.
use strict;
use warnings;
use Billing::Conservation qw(stock_astray);
use Billing::Database;
use POSIX ();
use Test::More;

my ($hosts, $accounts, $rounds) = (8, 3, 60);
my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', quotas => {}, stock => { a => {}, b => {} }, plans => { free => { stock => { a => 9, b => 4 } } } });
$db->psql("SELECT billing.ensure_accounts(ARRAY(SELECT 'x' || g FROM generate_series(1, $accounts) g))");
my $limits = $db->dbi;

my @children = map {
    my $host = $_;
    pipe my $from, my $to;
    my $pid = fork // die;
    if (!$pid) {
        my $d = $db->dbi;
        srand $host;
        my ($error, $made, @mine) = ('', 0);
        my $call = sub { my ($sql, @bind) = @_; return $db->until_unlocked($d, sub { $d->selectall_arrayref($sql, { Slice => {} }, @bind) }) || do { $error .= $@; [] } };
        for my $round (1 .. $rounds) {
            my @ask;
            for my $group (1 .. 1 + int rand 5) {
                my ($account, $name) = (1 + int rand $accounts, "$host-$round-$group");
                push @ask, map { [$group, $name, $account, $_, 1 + int rand 3] } rand() < 0.4 ? reverse(0, 1) : int rand 2;
            }
            my @c = map { my $i = $_; [map { $_->[$i] } @ask] } 0 .. 4;
            my $got = $call->('SELECT * FROM billing.stock_take($1, $2, $3, $4, $5, $6) ORDER BY ord', @c, [(60) x @ask]);
            for my $i (0 .. $#$got) {
                $error .= "more than the limit: $got->[$i]{used}\n" if $got->[$i]{kept} && $got->[$i]{used} > $got->[$i]{cap};
                push @mine, [@{ $ask[$i] }[1, 2, 3]] if $got->[$i]{kept};
                $made += $got->[$i]{kept};
            }
            my @settle = map { [@$_, (undef, 0)[int rand 2]] } grep { defined } splice @mine, 0, int rand(@mine + 1);
            push @settle, map { ["del-$host-$round-$_", 1 + int rand $accounts, int rand 2, -1 - int rand 3] } 1 .. int rand 4;
            @settle = sort { rand() <=> 0.5 } @settle;
            my @s = map { my $i = $_; [map { $_->[$i] } @settle] } 0 .. 3;
            $call->('SELECT billing.stock_settle($1, $2, $3, $4)', @s) for 1 .. 1 + int rand 2;    # whose answer was lost asks again
            if ($round % 7 == 0) {
                $call->(q{UPDATE billing.stock_holds SET expires_at = now() - interval '1 second' WHERE ctid IN (SELECT ctid FROM billing.stock_holds LIMIT 3 FOR UPDATE SKIP LOCKED) RETURNING 1});
                $call->('SELECT billing.stock_sweep(10)');
            }
        }
        print {$to} "$made\n$error";
        close $to;
        POSIX::_exit(0);
    }
    close $to;
    [$pid, $from];
} 1 .. $hosts;
my ($made, @errors) = (0);
for my $child (@children) {
    my ($n, @error) = readline $child->[1];
    waitpid $child->[0], 0;
    $made += $n;
    push @errors, @error;
}
is join('', @errors), '', 'nobody is over the limit, refused for another reason, or in a deadlock';
cmp_ok $made, '>', 100, 'places were reserved';
is_deeply [stock_astray($limits)], [], 'every change is in the ledger, every reserved place in its hold';
cmp_ok $db->psql('SELECT min(current) FROM billing.stock_levels'), '>=', 0, 'none is below zero';
is $db->psql(q{SELECT count(*) FROM (SELECT split_part(idem_key, ':', 2), account_id, stock_no FROM billing.stock_ledger
    WHERE action = 'create' GROUP BY 1, 2, 3 HAVING count(*) > 1) x}), 0, 'each name has made once';
done_testing;
