# A host: a real nginx (one master, two workers) with the module, a directory and ports of its own.
# The configuration is a text with placeholders:
#   %%GLOBALS%%       the module, processes, logs (first line of the file)
#   %%HTTP_GLOBALS%%  temporary paths (first line of http {})
#   %%PREFIX%%        the host's directory        %%PORT%%  its port        %%PORT_NAME%%  one more, see port('NAME')
#   %%ANYTHING%%      vars => {ANYTHING => '...'}
# At its end each host adds tests of its own: a clean exit and a log without alarming lines, unless expect_log named them.
package Billing::Nginx;
use v5.36;
use Billing::Client qw(requests);
use Billing::Process qw(wait_for free_port new_directory build sanitized slurp);
use IO::Socket::INET ();
use Test::More ();

my $alarming = qr/\[(?:alert|emerg|crit)\]|open socket|exited on signal|exited with code [1-9]|Sanitizer|runtime error:|terminate called|ended by an exception|billing: unexpected|billing: usage batch .* is dropped/;
my @hosts;

# conf => text; optional: name => for messages, vars => {}, workers => 2, log_level => 'info', start => 0 to start it later,
# modules => [files to load in place of ours], wrapper => [command to run nginx under, with %%PREFIX%%], env => {for master and workers},
# ports => {name => port}; daemon => 'on', master_process => 'off'.
# Workers may write into the folder reports.
sub new($class, %option) {
    my $self = bless {
        name => 'host', vars => {}, workers => 2, log_level => 'info', expected => [], ports => {}, env => {}, daemon => 'off',
        master_process => 'on', %option,
        directory => new_directory(),
    }, $class;
    mkdir "$self->{directory}/reports";
    chmod 0777, "$self->{directory}/reports";
    push @hosts, $self;
    $self->write_config($self->{conf});
    $self->start if $option{start} // 1;
    return $self;
}

sub directory($self) { $self->{directory} }
sub port($self, $name = 'main') { $self->{ports}{$name} //= free_port() }
sub address($self, $name = 'main') { '127.0.0.1:' . $self->port($name) }

# --- configuration ---

sub module_file() { build() . (sanitized() ? '/asan' : '') . '/ngx_http_billing_module.so' }

sub expand($self, $text, $error_log) {
    my $modules = join '', map { "load_module $_;\n" } $self->{modules} ? $self->{modules}->@* : module_file();
    my $globals = "${modules}daemon $self->{daemon};\nmaster_process $self->{master_process};\nworker_processes $self->{workers};\n"
        . "error_log $error_log $self->{log_level};\npid %%PREFIX%%/nginx.pid;\n"
        . ($> == 0 ? "user nobody nogroup;\n" : '')
        . join '', map { "env $_;\n" } sort(keys $self->environment->%*), sanitized() ? 'LSAN_OPTIONS' : ();
    my $http = join '', map { "$_ %%PREFIX%%/$_;\n" }
        map { "${_}_temp_path" } qw(client_body proxy fastcgi uwsgi scgi);
    my %vars = (%{$self->{vars}}, GLOBALS => $globals, HTTP_GLOBALS => "access_log off;\n$http",
        PREFIX => $self->{directory}, PORT => $self->port);
    my $value = sub ($name) {
        return $self->port($1) if $name =~ /^PORT_(\w+)$/;
        return $vars{$name} // die "no value for %%$name%% in the configuration\n";
    };
    1 while $text =~ s/%%([A-Z][A-Za-z0-9_]*)%%/$value->($1)/e;
    return $text;
}

# Replaces nginx.conf; takes effect with start or reload. vars given here stay.
sub write_config($self, $text, %vars) {
    $self->{vars} = {%{$self->{vars}}, %vars};
    write_file("$self->{directory}/nginx.conf", $self->expand($text, '%%PREFIX%%/error.log'));
    return;
}

# What `nginx -t` says to this configuration: (exit code, output). Nothing of the running host changes.
sub test_config($self, $text = $self->{conf}, %vars) {
    local $self->{vars} = {%{$self->{vars}}, %vars};
    my $file = "$self->{directory}/test.conf";
    my $log = "$self->{directory}/test.log";
    unlink $log;
    write_file($file, $self->expand($text, 'stderr'));
    my %env = $self->environment->%*;    # it ends without freeing its configuration, which is no leak
    $env{ASAN_OPTIONS} .= ':detect_leaks=0' if defined $env{ASAN_OPTIONS};
    my $process = Billing::Process->start(name => 'nginx -t', log => $log, env => \%env,
        command => ['nginx', '-t', '-p', "$self->{directory}/", '-e', 'stderr', '-c', $file]);
    my $status = $process->wait_exit(20);
    return ($status >> 8 || $status, slurp($log));
}

sub write_file($file, $text) {
    open my $out, '>', $file or die "$file: $!\n";
    print $out $text;
    close $out or die "$file: $!\n";
    return;
}

sub environment($self) {
    return $self->{env} if !sanitized();
    state $preload = join ' ', (map { chomp(my $file = qx(g++ -print-file-name=$_)); $file } qw(libasan.so libubsan.so)),
        build() . '/asan/keep_loaded.so';
    # An error aborts the process; leaks found at its exit are only reported (exitcode=0), with whole stacks.
    my $common = "log_path=$self->{directory}/reports/report:print_stacktrace=1";
    # libfaketime has to be first, and is gone already when the search for leaks asks for the time.
    my $clock = $self->{env}{LD_PRELOAD};
    return {
        $self->{env}->%*, LD_PRELOAD => join(' ', $clock // (), $preload), UBSAN_OPTIONS => "$common:halt_on_error=1",
        ASAN_OPTIONS => "$common:detect_odr_violation=0:abort_on_error=1:handle_abort=1:exitcode=0:fast_unwind_on_malloc=0"
            . ($clock ? ':verify_asan_link_order=0:detect_leaks=0' : ''),
    };
}

# --- life ---

sub start($self) {
    $self->{process} = Billing::Process->start(
        name => "nginx ($self->{name})",
        command => [(map { s/%%PREFIX%%/$self->{directory}/r } @{$self->{wrapper} // []}), program(), '-p', "$self->{directory}/", '-e', "$self->{directory}/error.log",
            '-c', "$self->{directory}/nginx.conf"],
        log => "$self->{directory}/output.log",
        env => $self->environment,
    );
    delete $self->{killed};
    if ($self->{daemon} eq 'on') {
        my $status = $self->{process}->wait_exit(20);
        die "$self->{name} does not start: " . slurp("$self->{directory}/output.log") if $status;
        $self->adopt($self->pid_of('nginx.pid'));
    }
    my $up = eval {
        $self->{process}->await(sub { $self->workers == $self->{workers} && $self->accepts }, 20, "$self->{name} accepts");
        1;
    };
    die "$@" . join("\n", grep { !/\[(?:notice|info|debug)\]/ } $self->log_lines) . "\n" if !$up;
    return $self;
}

# By its whole path: a binary upgrade starts what the first argument names.
sub program() {
    state $found = (grep { -x } map { "$_/nginx" } split /:/, $ENV{PATH})[0] // 'nginx';
    return $found;
}

# The pid in a file of the host's directory, once it is there.
sub pid_of($self, $file) {
    return wait_for(sub { (slurp("$self->{directory}/$file") =~ /^(\d+)\n/)[0] }, 10, "$self->{name} has written $file");
}

# Another master, not a child of ours, is the host from now on: its own, when it is a daemon, or the one of a binary upgrade.
sub adopt($self, $pid) {
    $self->{process} = Billing::Process->adopt(name => "nginx ($self->{name})", pid => $pid, log => "$self->{directory}/output.log");
    return;
}

sub accepts($self) { defined IO::Socket::INET->new(PeerAddr => $self->address) }
sub alive($self) { $self->{process} && $self->{process}->alive }
sub master($self) { $self->{process}->pid }

# The pids of the serving workers, oldest first.
sub workers($self) {
    return grep { $_ } $self->master if $self->{master_process} eq 'off';
    return Billing::Process::children($self->master) if $self->{wrapper};    # valgrind hides their titles
    return grep { Billing::Process::slurp("/proc/$_/cmdline") =~ /^nginx: worker process(?!.*shutting down)/ }
        Billing::Process::children($self->master);
}

# HUP; returns when new workers serve and the old ones are gone. Dies when nginx refuses the new configuration.
sub reload($self) {
    my %old = map { $_ => 1 } Billing::Process::children($self->master);
    my $mark = $self->mark;
    $self->{process}->signal('HUP');
    $self->{process}->await(sub {
        my @refused = grep { /\[emerg\]/ } $self->log_lines(undef, $mark);
        die "reload refused: @refused\n" if @refused;
        my @workers = grep { !$old{$_} } $self->workers;
        return @workers == $self->{workers} && !grep({ Billing::Process::process_alive($_) } keys %old) && $self->accepts;
    }, 30, "$self->{name} has reloaded");
    return;
}

# Kills a serving worker with SIGKILL; returns when nginx has replaced it. The alert about it is expected.
sub kill9_worker($self, $index = 0) { return $self->kill9_these(($self->workers)[$index]) }

# All of them at once.
sub kill9_workers($self) { return $self->kill9_these($self->workers) }

sub kill9_these($self, @pids) {
    $self->expect_log(qr/\[alert\].* worker process $_ exited on signal 9/) for @pids;
    kill 'KILL', @pids;
    my %killed = map { $_ => 1 } @pids;
    wait_for(sub { !grep({ $killed{$_} } $self->workers) && $self->workers == $self->{workers} }, 10, "workers @pids are replaced");
    return $pids[0];
}

# The host loses power: master and workers die at once. start brings it back.
sub kill9($self) {
    $self->{process}->kill9;
    $self->{killed} = 1;
    return;
}

sub pause($self) { $self->{process}->pause }
sub resume($self) { $self->{process}->resume }

# A graceful end (QUIT); the exit code must be 0.
sub quit($self) {
    my $status = $self->{process}->stop('QUIT', 30);
    Test::More::is($status, 0, "$self->{name}: exits with code 0");
    return;
}

# For programs that are no tests: a graceful end; dies when something alarming was logged.
sub quit_quietly($self) {
    $self->{finished} = 1;
    my $status = $self->{process}->stop('QUIT', 30);
    my @unexpected = $self->unexpected;
    die "$self->{name}: exit status $status\n", join("\n", @unexpected), "\n" if $status || @unexpected;
    return;
}

# --- its log ---

sub error_log($self) { "$self->{directory}/error.log" }

# A place in the log, for log_lines and wait_log.
sub mark($self) { -s $self->error_log // 0 }

sub log_lines($self, $pattern = undef, $mark = 0) {
    my $text = slurp($self->error_log);
    my @lines = split /\n/, $mark < length $text ? substr $text, $mark : '';
    return defined $pattern ? grep { $_ =~ $pattern } @lines : @lines;
}

sub wait_log($self, $pattern, $seconds = 10, $mark = 0) {
    return wait_for(sub { ($self->log_lines($pattern, $mark))[0] }, $seconds, "$self->{name} logs $pattern");
}

# An alarming line that this test provokes: it must appear, and is the only kind that may.
sub expect_log($self, $pattern) {
    push $self->{expected}->@*, $pattern;
    return;
}

sub unexpected($self) {
    my @found = grep { $_ =~ $alarming } $self->log_lines, split(/\n/, slurp("$self->{directory}/output.log"));
    for my $pattern ($self->{expected}->@*) {
        @found = grep { $_ !~ $pattern } @found;
    }
    push @found, map { split /\n/, without_nginx_leaks(slurp($_)) } glob "$self->{directory}/reports/report*";
    return @found;
}

# nginx itself leaves some of its start-up memory to the exit. A leak is ours when it was allocated in the module or while
# events were handled.
sub without_nginx_leaks($report) {
    my $ours = sub ($leaks) {
        return join '', grep { /ngx_http_billing_module\.so|ngx_process_events_and_timers/ } split /^(?=(?:Direct|Indirect) leak of )/m, $leaks;
    };
    $report =~ s{^(?:=+\n)?==\d+==ERROR: LeakSanitizer: detected memory leaks\n(.*?)^SUMMARY: [^\n]* leaked [^\n]*\n}{$ours->($1)}gmse;
    return $report =~ /\S/ ? $report : '';
}

# The end of the host and its own tests. Called by done_testing of Billing::Test for each host.
sub finish($self) {
    return if $self->{finished}++;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    $self->quit if $self->{process} && !$self->{killed};
    my @unexpected = $self->unexpected;
    Test::More::ok(!@unexpected, "$self->{name}: nothing alarming in its log") or Test::More::diag(join "\n", @unexpected);
    for my $pattern ($self->{expected}->@*) {
        Test::More::ok(scalar($self->log_lines($pattern)), "$self->{name}: logged $pattern");
    }
    return;
}

sub finish_all($class) {
    $_->finish for @hosts;
    return;
}

# A test that ends without done_testing has failed already: show what the hosts had to say.
END {
    for my $host (grep { !$_->{finished} } @hosts) {
        local $?;
        my @lines = $host->unexpected;
        Test::More::diag(join "\n", "$host->{name} was not finished; its log:", @lines ? @lines : grep({ defined } ($host->log_lines)[-5 .. -1])) if $host->{process};
    }
}

# --- requests ---

sub request($self, $method, $path, %option) { Billing::Client::request($self->address, $method, $path, %option) }
sub get($self, $path, %headers) { $self->request('GET', $path, headers => \%headers) }
sub post($self, $path, $body, %headers) { $self->request('POST', $path, headers => \%headers, body => $body) }

# The same GET $count times, $concurrency at a time.
sub get_many($self, $count, $concurrency, $path, %headers) {
    return requests($concurrency, map { {address => $self->address, method => 'GET', path => $path, headers => \%headers} } 1 .. $count);
}

# A bare connection, for clients that misbehave.
sub connect($self) {
    return IO::Socket::INET->new(PeerAddr => $self->address) // die "connect to $self->{name}: $!\n";
}

1;
