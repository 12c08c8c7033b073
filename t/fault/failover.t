# A standby that misses PostgreSQL's last commits becomes the primary: what it knows decides, although its versions are lower than what
# the lost primary had published; for accounts that hosts hold, for those that only Redis holds, and for the catalog; without a change,
# a reload or a restart. Usage is reported again, and changes arrive. E6; V1, V2, U2 after a fail-over.
use v5.36;
use Billing::Process qw(wait_for);
use Billing::Test;

sub as($account) { (Authorization => "Bearer test:$account") }
my $world = world(hosts => 2, locations => <<'END');
    billing on;
    billing_account $user;
    location /export/ { billing_feature asset_download; proxy_pass http://app; }
    location /api/ { billing_quota requests; proxy_pass http://app; }
END
my ($one, $two) = $world->hosts;
my $primary = $world->db;
sub everywhere($what, $status, $account, $path = '/export/x') {
    my %seen;
    ok eval {
        wait_for(sub { %seen = map { $_->{name} => $_->get($path, as($account))->status } $one, $two; !grep { $_ != $status } values %seen },
            15, $what);
    }, "$what: $status" or diag join ', ', %seen;
    return;
}
sub policy($host, $account) { $host->get('/api/x', as($account))->header('RateLimit-Policy') // 'none' }
sub stamp($account) { $world->redis->client->hget("billing:account:{$account}", 'stamp') // '' }

for my $account (qw(held cold kept lost)) {
    is $one->get('/export/x', as($account))->status, 403, "$account comes into being";
}
is $_->get('/api/x', as('held'))->status, 200, 'and spends' for $one, $two;

# The standby, as far as the primary has come; then it hears no more.
my $standby = $primary->standby;
wait_for(sub { $standby->psql(q{SELECT count(*) FROM billing.accounts}) == 4 }, 20, 'the standby follows');
my ($at) = map { $_->{at} } $world->sql('SELECT pg_current_wal_lsn() AS at');
wait_for(sub { $standby->psql("SELECT pg_last_wal_replay_lsn() >= '$at'") eq 't' }, 20, 'up to here');
$standby->psql(q{ALTER SYSTEM SET primary_conninfo = ''});
$standby->psql('SELECT pg_reload_conf()');
wait_for(sub { $standby->psql('SELECT count(*) FROM pg_stat_wal_receiver') == 0 }, 20, 'it hears no more');

# The tail that will be lost: many versions, all published; a new account; a catalog in which free accounts may export.
$world->must('account', 'set', 'held', '--plan', 'agency', '--limit', "requests=$_") for 101 .. 110;
$world->must('account', 'set', 'cold', '--plan', 'agency');
everywhere('before: held', 200, 'held');
wait_for(sub { policy($one, 'held') =~ /q=110/ && policy($two, 'held') =~ /q=110/ }, 5, 'the last of its limits');
my $catalog = $world->sample_catalog;
push $catalog->{plans}{free}{features}->@*, 'asset_download';
$world->apply_catalog($catalog);
everywhere('before: by the catalog', 200, 'lost');
is $one->get('/export/x', as('newborn'))->status, 200, 'before: one is born';
my %before = map { $_ => stamp($_) } qw(held cold);
ok $before{cold}, 'Redis holds what it published of an account that no host will hold';
# One of the hosts begins anew: of most accounts it has nothing but what it finds in Redis.
is $two->{process}->stop('QUIT', 20), 0, 'a host stops';
$two->start;
is $two->get('/export/x', as('lost'))->status, 200, 'and is back';
wait_for(sub { !$world->sql('SELECT 1 FROM billing.snapshot_dirty') }, 10, 'all is published');
# What the hosts report now will be lost, and with one of them that there is such a host.
sub reports() { (map { $_->{n} } $world->sql('SELECT coalesce(sum(last_seq), 0) AS n FROM billing.instances'))[0] }
for my $host (($one, $two) x 3) {
    my $before = reports();
    $host->get('/api/x', as('held'));
    wait_for(sub { reports() > $before }, 10, "$host->{name} reports");
}

# Lost with the tail: that these six were used, and what the host that stopped had given back: up to a take of each host.
$world->may_forfeit(held => 6 + 2 * 64);

$primary->kill9;
$standby->take_over($primary);
$world->{db} = $standby;
delete $world->{dbh};

everywhere('after: held', 403, 'held');
is $two->get('/export/x', as('cold'))->status, 403, 'after: what Redis holds of the lost timeline is not believed';
everywhere('after: cold', 403, 'cold');
everywhere('after: the catalog', 403, 'lost');
unlike policy($_, 'held'), qr/q=110/, "$_->{name}: the lost limit is gone" for $one, $two;
is $world->sql(q{SELECT 1 FROM billing.accounts WHERE external_id = 'newborn'}), 0, 'PostgreSQL does not know the newborn';
everywhere('after: it comes into being again', 403, 'newborn');
my ($held) = map { $_->{ent_version} } $world->sql(q{SELECT ent_version FROM billing.accounts WHERE external_id = 'held'});
cmp_ok $held, '<', hex(substr $before{held}, -10), "the new timeline's version is lower ($held)";
cmp_ok stamp('held'), 'gt', $before{held}, 'and its stamp is greater, in Redis too' if stamp('held') ne $before{held};
$world->must('account', 'set', 'cold', '--plan', 'starter');
everywhere('changes arrive', 200, 'cold');
cmp_ok stamp('cold'), 'gt', $before{cold}, 'Redis takes them';

# What is spent now is reported: the sequence of reports goes on.
my $used = sub { (map { $_->{used} } $world->sql(q{SELECT used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
    WHERE a.external_id = 'kept'}))[0] // 0 };
is $_->get('/api/x', as('kept'))->status, 200, "$_->{name}: units are issued" for $one, $two;
ok eval { wait_for(sub { $used->() == 2 }, 15, 'usage') }, 'U2: usage is reported to the new primary by both hosts' or diag $used->();
done_testing;
