# Promise (Q1): also of windows that overlap others no unit is granted beyond the cap, with many hosts asking and returning at once
# while anchors change under them and buckets begin; every unit is in one row, and nobody deadlocks.
use strict;
use warnings;
use Test::More;
use Billing::Database;
use Time::HiRes qw(sleep);

my ($hosts, $accounts, $rounds) = (8, 2, 150);
my %cap = (0 => 90, 1 => 120);
my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', quotas => { a => { period => 'cycle' }, b => { period => 'sliding', length => '1m' } },
    plans => { free => { quotas => { a => $cap{0}, b => $cap{1} } } } });
$db->psql("SELECT billing.ensure_accounts(ARRAY(SELECT 'x' || g FROM generate_series(1, $accounts) g))");
my $began = time;
my @pids;

# In a process of its own: what the function prints is what comes back.
sub apart {
    my ($work) = @_;
    pipe my $from, my $to;
    my $pid = fork // die;
    if (!$pid) {
        close $from;
        my $said = eval { $work->($db->dbi) };
        print {$to} $said // "error $@";
        close $to;
        require POSIX;
        POSIX::_exit(0);
    }
    close $to;
    push @pids, $pid;
    return $from;
}

my @children = map {
    my $host = $_;
    apart(sub {
        my ($d) = @_;
        srand $host;
        my (%held, $error);
        my ($seq, $uuid) = (0, sprintf '00000000-0000-0000-0000-%012d', $host);
        for my $round (1 .. $rounds) {
            my @ask = map { [$_, 1 + int rand $accounts, int rand 2, 1 + int rand 9] } 1 .. 1 + int rand 3;
            my @c = map { my $i = $_; [map { $_->[$i] } @ask] } 0 .. 3;
            my $zero = [(0) x @ask];
            $d->begin_work;
            my $got = $db->until_unlocked($d, sub { $d->selectall_arrayref('SELECT * FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7) ORDER BY ord',
                { Slice => {} }, $c[0], $c[1], $c[2], $zero, $c[3], [map { $_ + 40 } @{ $c[3] }], $zero) });
            $error .= $@ if !$got;
            sleep 0.004;    # a slow commit: what is issued and not seen yet is what could be issued twice
            $d->commit;
            $held{"$ask[$_][1]/$ask[$_][2]/$got->[$_]{period}"} += $got->[$_]{granted} for 0 .. $#{ $got || [] };
            $error .= "cap passed: $_->{issued} > $_->{cap}\n" for grep { $_->{issued} > $_->{cap} } @{ $got || [] };
            next if $round % 4;
            my @rows;
            for my $key (keys %held) {
                my $back = int rand(1 + $held{$key} / 2);
                $held{$key} -= $back;
                push @rows, [split('/', $key), 0, $back] if $back;
            }
            my @f = map { my $i = $_; [map { $_->[$i] } @rows] } 0 .. 4;
            $seq++;
            my $said = $db->until_unlocked($d, sub { $d->selectrow_array('SELECT billing.usage_flush($1, $2, $3, $4, $5, $6, $7, $8)', undef,
                $uuid, "host$host", $seq, @f) }) // '';
            $error .= "flush: $said $@\n" if $said ne 'ok';
        }
        return defined $error ? "error $error" : join '', map { "$_ $held{$_}\n" } keys %held;
    });
} 1 .. $hosts;
my $flipping = apart(sub {
    my ($d) = @_;
    for my $flip (1 .. 300) {
        $d->do(q{UPDATE billing.accounts SET cycle_anchor = now() - make_interval(days => $1) WHERE id = $2}, undef,
            1 + $flip % 20, 1 + $flip % $accounts);
        sleep 0.01;
    }
    return '';
});
my (%sum, %row);
for my $from (@children, $flipping) {
    my $said = join '', readline $from;
    unlike $said, qr/^error/, 'no error, no deadlock';
    /^(\d+)\/(\d)\/(\d+) (\d+)$/ and $sum{"$1/$2"} += $4, $row{"$1/$2/$3"} += $4 for split /\n/, $said;
}
waitpid $_, 0 for @pids;
cmp_ok time - $began, '<', 55, 'all of it within a minute, which is what the sliding window spans';
is keys %sum, 2 * $accounts, 'every quota of every account was asked for';
for my $key (sort keys %sum) {
    my ($limit) = $key =~ /(\d)$/;
    cmp_ok $sum{$key}, '<=', $cap{$limit}, "$key: at most the cap in all windows together";
    cmp_ok $sum{$key}, '>', $cap{$limit} / 2, 'and it was put to the test';
}
my @differ;
for my $key (grep { $row{$_} } sort keys %row) {
    my ($account, $limit, $period) = split m{/}, $key;
    my $issued = $db->psql("SELECT issued FROM billing.quota_periods WHERE account_id = $account AND limit_no = $limit AND period = $period");
    push @differ, "$key: $issued, hosts have $row{$key}" if $issued != $row{$key};
}
is_deeply \@differ, [], 'each row has what the hosts hold';
cmp_ok scalar(keys %row), '>', 4 * $accounts, 'over many windows';
done_testing;
