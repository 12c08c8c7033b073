# Credits of one busy account, durable before the answer (script/bench, P8): requests through the gate, beside pgbench with sixteen
# clients that take from one row, in the same PostgreSQL, which waits for its disk.
package Billing::Bench::Credits;
use v5.36;
use Billing::Bench ();
use Billing::Database ();
use Billing::Nginx ();
use Billing::Process qw(new_directory root wait_for);
use Billing::Redis ();
use Billing::Test ();

my $plenty = 1_000_000_000;
my $catalog = {default_plan => 'free', quotas => {}, credits => {unit => {}}, plans => {free => {rank => 0, free => JSON::PP::true, credits => {unit => $plenty}}}};
my $variant = {name => 'cred', title => 'gate: a credit for each request', prefix => 'hot'};

my $conf = <<'END';
%%GLOBALS%%
events { worker_connections 1024; }
http {
    %%HTTP_GLOBALS%%
    billing_zone main 8m;
    billing_postgres "%%DSN%%";
    billing_redis %%REDIS%%;
    billing_catalog %%CATALOG%%;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    keepalive_requests 100000000;
    upstream app { server unix:%%APP%%; keepalive 256; keepalive_requests 100000000; }
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        billing on;
        billing_account $http_x_account;
        location /cred/ { billing_credits unit 1; proxy_pass http://app; }
    }
}
END

sub new($class, %option) {
    my $self = bless {%option, directory => new_directory(), db => Billing::Database->new(fsync => 1), redis => Billing::Redis->new}, $class;
    my $file = Billing::Test::catalog_file($self, $catalog);
    for my $command (['migrate', '--dir', root() . '/migrations'], ['catalog', 'apply', $file]) {
        my $result = Billing::Test::run_command(@$command, '--dsn', $self->{db}->dsn);
        die "ngx-billing @$command: $result->{err}$result->{out}" if $result->{code};
    }
    $self->{dbh} = $self->{db}->dbi;
    $self->{dbh}->do("SELECT billing.ensure_accounts('{hot-1}')");
    $self->{dbh}->do('CREATE TABLE hot (id integer PRIMARY KEY, units bigint NOT NULL)');
    $self->{dbh}->do("INSERT INTO hot VALUES (1, $plenty)");
    Billing::Nginx::write_file("$self->{directory}/take.sql", "UPDATE hot SET units = units - 1 WHERE id = 1 AND units >= 1;\n");
    $self->{host} = Billing::Nginx->new(name => 'credits', conf => $conf, workers => 1, log_level => 'warn', wrapper => $self->{wrapper},
        vars => {DSN => $self->{db}->dsn, REDIS => $self->{redis}->address, CATALOG => $file, APP => $self->{load}->application});
    return $self;
}

# One run of ours: its requests have all been paid, exactly, when it returns.
sub run($self, %words) {
    my $run = $self->{load}->run($self->{host}, $variant, accounts => 1, timed => 1, %words);
    $self->{requests} += $run->{all};
    my $left = sub { ($self->{dbh}->selectrow_array('SELECT coalesce((SELECT remaining FROM billing.credit_balances), 0), (SELECT count(*) FROM billing.credit_holds)')) };
    wait_for(sub { ($left->())[1] == 0 }, 60, 'all is settled');
    my ($remaining) = $left->();
    die "of $self->{requests} requests " . ($plenty - $remaining) . " have been paid\n" if $remaining != $plenty - $self->{requests};
    return $run;
}

# The same many seconds of pgbench: {rate}.
sub pgbench($self, $seconds) {
    my ($socket, $port) = $self->{db}->dsn =~ /host=(\S+) port=(\d+)/;
    my $said = qx(pgbench -n -h $socket -p $port -U postgres -c 16 -j 1 -T $seconds -f $self->{directory}/take.sql billing 2>&1);
    my ($rate) = $said =~ /tps = ([\d.]+)/ or die "pgbench: $said";
    return {rate => $rate};
}

sub finish($self) {
    $self->{host}->quit_quietly;
    return;
}

1;
