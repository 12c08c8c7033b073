# What a test file of the whole product uses: Test::More, wait_for and a world.
#
#   use Billing::Test;
#   my $world = world(hosts => 2, locations => 'location /api/ { billing on; billing_account $user; proxy_pass http://app; }');
#   is $world->host(0)->get('/api/x', Authorization => 'Bearer demo-token')->status, 200, 'a known caller passes';
#   done_testing;
#
# A world has a PostgreSQL, a Redis and a sample application of its own, migrated and with a catalog, and hosts (nginx) before
# the application. Identities: "Bearer demo-token" is the account demo, "Bearer test:NAME" the account NAME, else nobody.
# With stripe => 1 it has a stand-in for Stripe too, which sells the catalog and tells host 0 of what happens there.
package Billing::Test;
use v5.36;
use B ();
use Billing::App ();
use Billing::Conservation qw(credits_astray overage_astray quotas_astray stock_astray);
use Billing::Database ();
use Billing::Nginx ();
use Billing::Process qw(wait_for free_port build new_directory root slurp);
use Billing::Redis ();
use Billing::Stripe ();
use JSON::PP ();
use Test::More ();

my $number = 0;
my @worlds;

sub import($class) {
    my $caller = caller;
    strict->import;
    warnings->import;
    feature->import(':5.36');
    no strict 'refs';
    *{"${caller}::$_"} = \&{"Test::More::$_"} for grep { !/^(?:done_testing|subtest)$/ } @Test::More::EXPORT;
    *{"${caller}::$_"} = \&{$_} for qw(world wait_for subtest done_testing);
    return;
}

# Ends all hosts first: their own tests (clean exit, clean log) belong to the file, and so does that no unit has gone astray.
sub done_testing() {
    Billing::Nginx->finish_all;
    finish(splice @worlds);
    return Test::More::done_testing();
}

# A world that only this subtest knew ends with it, in the same way.
sub subtest($name, $code) {
    my $others = @worlds;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return Test::More::subtest($name => sub {
        $code->();
        my @mine = splice @worlds, $others;
        push @worlds, grep { B::svref_2object($_)->REFCNT > 1 } @mine;
        finish(grep { B::svref_2object($_)->REFCNT == 1 } @mine);
    });
}

# After a clean stop all units are back or used, to the last one.
sub finish(@ended) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    for my $world (@ended) {
        $_->finish for $world->hosts;
        my $dbh = $world->{db}->pid ? $world->{db}->dbi : next;
        Test::More::is_deeply([credits_astray($dbh)], [], "world $world->{number}: every credit is accounted for");
        Test::More::is_deeply([stock_astray($dbh)], [], "world $world->{number}: and every thing of a stock");
        Test::More::is_deeply([overage_astray($dbh)], [], "world $world->{number}: overage of quotas is charged for once");
        Test::More::is_deeply([quotas_astray($dbh, $world->{may_forfeit} // {}), grep { /WARNING:\s.*rows are dropped/ } split /\n/, $world->{db}->log], [],
            "world $world->{number}: every unit of quotas is accounted for");
    }
    return;
}

# What this test takes away from an account ('*': from any), of each of its quotas: units that hosts held which it kills, or that were
# in an answer of PostgreSQL which it makes them lose. Bounds add up.
sub may_forfeit($self, $account, $units) {
    $self->{may_forfeit}{$account} += $units;
    return;
}

sub world(%option) {
    push @worlds, __PACKAGE__->new(%option);
    return $worlds[-1];
}

my $standard = <<'END';
%%GLOBALS%%
events { worker_connections 1024; }
http {
    %%HTTP_GLOBALS%%
    %%BILLING%%
    map $http_authorization $user {
        "Bearer demo-token" demo;
        "~^Bearer test:(?<test_account>.+)$" $test_account;
    }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream app { server %%UPSTREAM%%; keepalive 16; }
    %%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
        %%SERVER%%
        %%LOCATIONS%%
    }
}
END

# All optional:
#   hosts => 1, redis => 1 (0: none, and no billing_redis), catalog => file or hash (conf/catalog.json), database => {options}
#   locations, server, http => text for the standard configuration; conf => a whole one instead (same placeholders)
#   billing => text after the standard billing_* lines; workers => 2; log_level => 'info'; wrapper => [command for nginx], daemon => 'on';
#   start => 0: hosts are made, not started
#   stripe => 1 or {options for Billing::Stripe, webhook => {options for its endpoint, http://HOST0/billing/webhook; path => another}};
#   billing => more directives of http; %%PUBLIC%% is where host 0 is; env => {variables for the hosts}
#   clock => a Billing::Clock, for the hosts, PostgreSQL and the stand-in (then without Redis)
sub new($class, %option) {
    my $self = bless {number => ++$number, directory => new_directory(), hosts => []}, $class;
    my $env = {$option{clock} ? $option{clock}->environment->%* : (), %{$option{env} // {}}};
    $self->{db} = Billing::Database->new(env => $env, %{$option{database} // {}});
    $self->{redis} = Billing::Redis->new if $option{redis} // !$option{clock};
    $self->{app} = Billing::App->new;
    $self->{catalog} = $self->catalog_file($option{catalog} // root() . '/conf/catalog.json');
    $self->must('migrate', '--dir', root() . '/migrations');
    $self->must('catalog', 'apply', $self->{catalog});
    my $front = free_port();
    $self->{public} = "http://127.0.0.1:$front";
    my $billing = join "\n    ", 'billing_zone main 8m;', 'billing_postgres "%%DSN%%";',
        ($self->{redis} ? 'billing_redis %%REDIS%%;' : ()), 'billing_catalog %%CATALOG%%;',
        ($option{stripe} ? $self->start_stripe($env, ref $option{stripe} ? $option{stripe}->%* : ()) : ()), $option{billing} // ();
    for my $index (0 .. ($option{hosts} // 1) - 1) {
        push $self->{hosts}->@*, Billing::Nginx->new(
            name => ($number > 1 ? "world $number " : '') . "host $index",
            conf => $option{conf} // $standard,
            start => $option{start} // 1,
            workers => $option{workers} // 2,
            log_level => $option{log_level} // 'info',
            wrapper => $option{wrapper},
            daemon => $option{daemon} // 'off',
            env => $env,
            ports => $index ? {} : {main => $front},
            vars => {
                BILLING => $billing, DSN => $self->dsn, REDIS => $self->{redis} ? $self->{redis}->address : '',
                CATALOG => $self->{catalog}, PUBLIC => $self->{public}, UPSTREAM => $self->{app}->address, HTTP => $option{http} // '',
                SERVER => $option{server} // '', LOCATIONS => $option{locations} // 'location / { proxy_pass http://app; }',
            },
        );
    }
    return $self;
}

# The stand-in, and what the hosts' configuration says of it.
sub start_stripe($self, $env, %option) {
    my $webhook = delete $option{webhook} // {};
    my $path = delete $webhook->{path} // '/billing/webhook';
    $self->{webhook_secret} = 'whsec_' . join '', map { ('a' .. 'z', 0 .. 9)[rand 36] } 1 .. 32;
    my $stripe = $self->{stripe} = Billing::Stripe->new(catalog => $self->{catalog}, env => $env, %option);
    $stripe->webhook(url => "$self->{public}$path", secret => $self->{webhook_secret}, %$webhook);
    return join "\n    ", 'billing_stripe key=' . $stripe->key . ' api=' . $stripe->url . ';',
        "billing_webhook_secret $self->{webhook_secret};", "billing_public_url $self->{public};";
}

sub host($self, $index = 0) { $self->{hosts}[$index] }
sub hosts($self) { $self->{hosts}->@* }
sub db($self) { $self->{db} }
sub redis($self) { $self->{redis} }
sub app($self) { $self->{app} }
sub stripe($self) { $self->{stripe} }
sub webhook_secret($self) { $self->{webhook_secret} }
sub public_url($self) { $self->{public} }    # where host 0 is
sub dsn($self) { $self->{db}->dsn }
sub directory($self) { $self->{directory} }

# The file of a catalog given as data; a file name stays what it is.
sub catalog_file($self, $catalog) {
    return $catalog if !ref $catalog;
    my $file = "$self->{directory}/catalog-" . ++$self->{catalogs} . '.json';
    open my $out, '>:raw', $file or die "$file: $!\n";
    print $out JSON::PP->new->utf8->canonical->pretty->encode($catalog);
    close $out or die "$file: $!\n";
    return $file;
}

# conf/catalog.json as data, to change and apply.
sub sample_catalog($self) { JSON::PP->new->utf8->decode(slurp(root() . '/conf/catalog.json')) }

sub apply_catalog($self, $catalog) { $self->must('catalog', 'apply', $self->catalog_file($catalog)) }

# Runs build/ngx-billing ARGUMENTS --dsn DSN: {code, out, err}. must dies when the code is not 0 and returns the output.
sub command($self, @arguments) { run_command(@arguments, '--dsn', $self->dsn) }

sub must($self, @arguments) {
    my $result = $self->command(@arguments);
    die "ngx-billing @arguments: exit code $result->{code}\n$result->{err}$result->{out}" if $result->{code};
    return $result->{out};
}

# The same without a database: (for usage errors) Billing::Test::run_command('--help').
sub run_command(@arguments) {
    my $directory = new_directory();
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$directory/out";
        open STDERR, '>', "$directory/err";
        { exec build() . '/ngx-billing', @arguments }
        print STDERR build() . "/ngx-billing: $!\n";
        POSIX::_exit(127);
    }
    my $status = -1;
    wait_for(sub { waitpid($pid, POSIX::WNOHANG()) == $pid && do { $status = $?; 1 } }, 60, "ngx-billing @arguments ends");
    return {code => $status >> 8 || $status, out => slurp("$directory/out"), err => slurp("$directory/err")};
}

# account show ID --json, as data.
sub account($self, $id) { JSON::PP->new->utf8->boolean_values(0, 1)->decode($self->must('account', 'show', $id, '--json')) }

# The rows of a statement, each a hash.
sub sql($self, $statement, @values) {
    my $dbh = $self->{dbh} && $self->{dbh}->ping ? $self->{dbh} : ($self->{dbh} = $self->{db}->dbi);
    my $query = $dbh->prepare($statement);
    $query->execute(@values);
    return $query->{NUM_OF_FIELDS} ? $query->fetchall_arrayref({})->@* : ();
}

1;
