# The sample application behind the gate: a Mojolicious server in a process of its own. It answers each request with JSON
# {"method", "path", "query", "headers", "body"} of what it received, and counts what it received. Paths that fail on purpose:
#   /status/503    that status             /slow/1.5    the answer after so many seconds
#   /abort         no answer, the connection is closed
# With ?used=N its answer says X-Billing-Cost: N, as often as it stands there.
# Under the gate's prefixes too: only the end of the path counts (/api/status/503). GET / is a page for the demo, App.html.
package Billing::App;
use v5.36;
use Billing::Client qw(request);
use Billing::Process qw(free_port new_directory slurp);

# port => where to listen (default: a free one). Returns when it answers.
sub new($class, %option) {
    my $self = bless {port => $option{port} // free_port(), directory => new_directory()}, $class;
    $self->{process} = Billing::Process->start(
        name => 'sample application',
        command => [$^X, (map { "-I$_" } @INC), '-MBilling::App', '-e', 'Billing::App::serve(@ARGV)', '--', $self->{port}],
        log => "$self->{directory}/app.log",
    );
    $self->{process}->await(sub { eval { request($self->address, 'GET', '/-/count')->status == 200 } }, 10,
        'the sample application answers');
    return $self;
}

sub port($self) { $self->{port} }
sub address($self) { "127.0.0.1:$self->{port}" }
sub stop($self) { $self->{process}->stop }
sub pause($self) { $self->{process}->pause }
sub resume($self) { $self->{process}->resume }

# Requests received so far, all or those with this path (control requests do not count).
sub count($self, $path = undef) {
    my $counts = request($self->address, 'GET', '/-/count')->json;
    return $counts->{$path} // 0 if defined $path;
    my $all = 0;
    $all += $_ for values %$counts;
    return $all;
}

sub reset_count($self) {
    request($self->address, 'POST', '/-/reset');
    return;
}

# The server itself, in its own process.
sub serve($port) {
    require Mojolicious;
    require Mojo::IOLoop;
    require Mojo::Server::Daemon;
    my %count;
    my $app = Mojolicious->new;
    $app->secrets(['sample']);
    $app->log->level('warn');
    my $routes = $app->routes;
    $routes->get('/-/count' => sub ($c) { $c->render(json => \%count) });
    $routes->post('/-/reset' => sub ($c) { %count = (); $c->render(json => {}) });
    my $page = slurp(__FILE__ =~ s/\.pm$/.html/r);
    $routes->get('/' => sub ($c) { $c->render(data => $page, format => 'html') });
    $routes->any('/*rest' => {rest => ''} => sub ($c) { receive($c, \%count) });
    Mojo::Server::Daemon->new(app => $app, listen => ["http://127.0.0.1:$port"], silent => 1, keep_alive_timeout => 60,
        max_clients => 2000)->run;
    return;
}

sub receive($c, $count) {
    my $request = $c->req;
    my $path = $request->url->path->to_string;
    $count->{$path}++;
    my %answer = (
        method => $request->method,
        path => $path,
        query => $request->url->query->to_string,
        headers => {map { lc($_) => $request->headers->header($_) } $request->headers->names->@*},
        body => $request->body,
    );
    $c->res->headers->add('X-Billing-Cost' => $_) for $request->url->query->every_param('used')->@*;
    if ($path =~ m{/status/(\d{3})$}) {
        $c->render(json => \%answer, status => $1);
    } elsif ($path =~ m{/slow/([\d.]+)$}) {
        $c->render_later;
        Mojo::IOLoop->timer($1 => sub { $c->render(json => \%answer) });
    } elsif ($path =~ m{/abort$}) {
        $c->render_later;
        Mojo::IOLoop->remove($c->tx->connection);
    } else {
        $c->render(json => \%answer);
    }
    return;
}

1;
