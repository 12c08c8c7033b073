# The workers need a database role that owns nothing and writes no table: membership in billing_gate and billing_jobs carries the whole
# journey, and a worker's connection can do no more. A45, S4 in small.
use v5.36;
use Billing::Test;
use DBI;

my $world = world(start => 0, locations => <<'END');
    billing on;
    billing_account $user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
END
$world->sql('CREATE ROLE worker LOGIN');
$world->sql('GRANT billing_gate, billing_jobs TO worker');
my $dsn = $world->db->dsn(user => 'worker');
my $host = $world->host;
$host->write_config($host->{conf}, DSN => $dsn);
$host->start;
my @demo = (Authorization => 'Bearer demo-token');
is $host->get('/api/x', @demo)->status, 200, 'an account comes into being';
$world->must('account', 'set', 'demo', '--limit', 'requests=1');
wait_for(sub { $host->get('/api/x', @demo)->status == 402 }, 2, 'changes arrive');
pass 'changes arrive';
wait_for(sub { ($world->sql('SELECT used FROM billing.quota_periods'))[0]{used} >= 1 }, 5, 'usage is reported');
pass 'usage is reported';

my $worker = $world->db->dbi(user => 'worker');
$worker->{PrintError} = 0;
for my $statement (
    "UPDATE billing.accounts SET plan_no = 4", "INSERT INTO billing.accounts (external_id, plan_no) VALUES ('x', 1)",
    "DELETE FROM billing.quota_periods", "UPDATE billing.quota_periods SET issued = 0", "TRUNCATE billing.audit_log",
    "SELECT billing.account_set('demo', '{\"plan\": \"agency\"}', 'worker')", "SELECT billing.catalog_apply('{}')",
    "SELECT * FROM billing.accounts", "DROP TABLE billing.meta", "CREATE TABLE billing.mine (n int)",
) {
    ok !eval { $worker->do($statement); 1 }, "refused: $statement";
    is $worker->state, '42501', 'for want of privilege' or diag $worker->errstr;
}
done_testing;
